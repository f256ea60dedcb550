"""The application of the battery, for uvicorn (asgi) and gunicorn (wsgi)."""

import asyncio
import hashlib
import json
import time
from urllib.parse import parse_qs

PATTERN = bytes(range(251))


def pattern(size):
    return (PATTERN * (size // 251 + 1))[:size]


def pieces(body, size=65536):
    return (body[i:i + size] for i in range(0, len(body), size))


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        return await echo(receive, send)
    path, query = scope["raw_path"].decode(), scope["query_string"].decode()
    headers = {n.decode(): v.decode("latin-1") for n, v in scope["headers"]}

    async def answer(body, status=200, extra=(), length=True):
        if length and status not in (204, 304):
            extra = [*extra, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": list(extra)})
        for piece in pieces(body):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    _, what, *rest = path.split("/")
    if what == "bytes":
        await answer(pattern(int(rest[0])))
    elif what == "chunks":
        await answer(pattern(int(rest[0])), length=False)
    elif what == "late":
        await asyncio.sleep(float(rest[0]))
        await answer(b"late")
    elif what == "pause":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await asyncio.sleep(float(rest[0]))
        await send({"type": "http.response.body", "body": b"b"})
    elif what == "sum":
        await asyncio.sleep(float(parse_qs(query).get("nap", ["0"])[0]))
        length, digest = 0, hashlib.sha256()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            length += len(message["body"])
            digest.update(message["body"])
            if not message["more_body"]:
                break
        await answer(json.dumps({"length": length, "sha256": digest.hexdigest()}).encode())
    elif what == "status":
        await answer(b"", int(rest[0]))
    elif what == "cookies":
        await answer(b"", extra=[(b"set-cookie", b"a=1; Path=/"), (b"set-cookie", b"b=2; Path=/")])
    else:
        target = path + ("?" + query if query else "")
        await answer(json.dumps({"method": scope["method"], "path": target, "headers": headers}).encode())


async def echo(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "bytes": message.get("bytes"), "text": message.get("text")})


def wsgi(environ, start_response):
    path, _, query = environ["RAW_URI"].partition("?")
    _, what, *rest = path.split("/")

    def answer(body, status="200 OK", extra=(), length=True):
        start_response(status, [*extra, *([("Content-Length", str(len(body)))] if length else [])])
        return pieces(b"" if environ["REQUEST_METHOD"] == "HEAD" else body)

    if what == "bytes":
        return answer(pattern(int(rest[0])))
    if what == "chunks":
        return answer(pattern(int(rest[0])), length=False)
    if what == "late":
        time.sleep(float(rest[0]))
        return answer(b"late")
    if what == "pause":
        return paused(start_response, float(rest[0]))
    if what == "sum":
        time.sleep(float(parse_qs(query).get("nap", ["0"])[0]))
        length, digest = 0, hashlib.sha256()
        while piece := environ["wsgi.input"].read(65536):
            length += len(piece)
            digest.update(piece)
        return answer(json.dumps({"length": length, "sha256": digest.hexdigest()}).encode())
    if what == "status":
        return answer(b"", rest[0] + " status", length=rest[0] not in ("204", "304"))
    if what == "cookies":
        return answer(b"", extra=[("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; Path=/")])
    headers = {n[5:].lower().replace("_", "-"): v for n, v in environ.items() if n.startswith("HTTP_")}
    return answer(json.dumps({"method": environ["REQUEST_METHOD"], "path": environ["RAW_URI"], "headers": headers}).encode())


def paused(start_response, seconds):
    start_response("200 OK", [])
    yield b"a"
    time.sleep(seconds)
    yield b"b"
