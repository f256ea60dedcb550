"""aiohttp as a client, of HTTP and of WebSockets: exchanges come as lines of JSON, results go as lines of JSON."""

import sys

sys.path.append(__file__.rpartition("/")[0])
import asyncio
import hashlib
import ssl

import aiohttp
import yarl
from exchange import exchanges, pieces, report

busy = asyncio.Semaphore(2)
trust = ssl.create_default_context(cafile=sys.argv[1])


async def body(e):
    paused = not e["pause"]
    for n, piece in pieces(e):
        if n and not paused:
            paused = True
            await asyncio.sleep(e["pause"])
        yield piece


async def once(session, e):
    headers = [(name, value) for name, value in e["headers"] or []]
    data = None
    if e["body"] >= 0:
        data = body(e)
        if not e["chunked"]:
            headers.append(("Content-Length", str(e["body"])))
    async with session.request(e["method"], yarl.URL(e["url"], encoded=True), headers=headers, data=data, expect100=e["expect"], ssl=trust, allow_redirects=False) as answer:
        length, digest, text = 0, hashlib.sha256(), b""
        async for piece in answer.content.iter_chunked(65536):
            if not length and e["read"]:
                await asyncio.sleep(e["read"])
            length += len(piece)
            digest.update(piece)
            text += piece[:16384 - len(text)]
        return {"status": answer.status, "version": f"HTTP/{answer.version.major}.{answer.version.minor}",
                "headers": {n.lower(): ", ".join(answer.headers.getall(n)) for n in answer.headers},
                "length": length, "sha256": digest.hexdigest(), "text": text.decode("latin-1")}


async def socket(session, e):
    """Messages of some sizes that must come back, with silence between them."""
    async with session.ws_connect(e["url"], ssl=trust, max_msg_size=0) as ws:
        for size in e["messages"]:
            await ws.send_bytes(b"x" * size)
            message = await ws.receive(timeout=120)
            if message.type != aiohttp.WSMsgType.BINARY or len(message.data) != size:
                raise RuntimeError(f"a message of {size} bytes came back as {message.type!r} {str(message.data)[:80]}")
            if e["pause"]:
                await silence(ws, e["pause"])
        return {"status": 101}


async def silence(ws, seconds):
    """Nothing comes for a while. Pings of the server are answered while one waits for a message."""
    try:
        message = await asyncio.wait_for(ws.receive(), seconds)
    except asyncio.TimeoutError:
        return
    raise RuntimeError(f"{message.type!r} {message.data} instead of silence")


async def act(shared, e):
    if e["messages"]:
        return await socket(shared, e)
    if not e["again"]:
        return await once(shared, e)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_read=120), auto_decompress=False) as session:
        await once(session, e)
        await asyncio.sleep(e["again"])
        return await once(session, e)


async def finish(shared, e):
    try:
        if e["waits"]:
            report(e, await act(shared, e))
        else:
            async with busy:
                report(e, await act(shared, e))
    except Exception as problem:
        report(e, {"error": f"{type(problem).__name__}: {problem}"})


async def main():
    timeout = aiohttp.ClientTimeout(total=None, sock_read=120)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as shared:
        await asyncio.gather(*(finish(shared, e) for e in exchanges()))


asyncio.run(main())
