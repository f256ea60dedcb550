"""gRPC's C core as a server (`grpc_peer.py serve PORT`) and as a client (`grpc_peer.py call CA`), with raw bytes for messages."""

import sys

sys.path.append(__file__.rpartition("/")[0])
import queue
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import grpc
from exchange import exchanges, finish


class Server(grpc.GenericRpcHandler):
    def service(self, details):
        kind = {"Unary": grpc.unary_unary_rpc_method_handler, "Fail": grpc.unary_unary_rpc_method_handler,
                "Chat": grpc.stream_stream_rpc_method_handler, "Upload": grpc.stream_unary_rpc_method_handler,
                "Download": grpc.unary_stream_rpc_method_handler}
        name = details.method.rpartition("/")[2]
        return kind[name](getattr(self, name))

    def Unary(self, message, context):
        time.sleep(float(message.split(b"\n")[0]))
        return message

    def Fail(self, message, context):
        context.set_trailing_metadata((("why", "because"),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "café 100%")

    def Chat(self, messages, context):
        yield from messages

    def Upload(self, messages, context):
        return str(sum(map(len, messages))).encode()

    def Download(self, message, context):
        count, size, nap = message.split()
        for n in range(int(count)):
            if n:
                time.sleep(float(nap))
            yield b"x" * int(size)


def serve(port):
    server = grpc.server(ThreadPoolExecutor(200))
    server.add_generic_rpc_handlers((Server(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


channels = {}


def channel(url, ca):
    at = urlsplit(url)
    if at.netloc not in channels:
        if at.scheme == "https":
            with open(ca, "rb") as f:
                channels[at.netloc] = grpc.secure_channel(at.netloc, grpc.ssl_channel_credentials(f.read()))
        else:
            channels[at.netloc] = grpc.insecure_channel(at.netloc)
    return channels[at.netloc], at.path


def call(e, ca):
    to, method = channel(e["url"], ca)
    name, size, pause = method.rpartition("/")[2], e["body"], e["pause"]
    wait = 3 if e["method"] == "deadline" else 150
    message = f"{pause}\n".encode() + b"x" * size
    if name in ("Unary", "Fail"):
        if to.unary_unary(method)(message, timeout=wait) != message:
            raise RuntimeError("another message came back")
        return {"length": size}
    if name == "Upload":
        def pieces():
            for n in range(40):
                if n == 20:
                    time.sleep(pause)
                yield b"x" * (size // 40)
        return {"length": int(to.stream_unary(method)(pieces(), timeout=wait))}
    if name == "Download":
        count = 2 if pause else 40
        return {"length": sum(map(len, to.unary_stream(method)(f"{count} {size // count} {pause}".encode(), timeout=wait)))}
    out = queue.Queue()
    answers = to.stream_stream(method)(iter(out.get, None), timeout=wait)
    for n in range(2):
        if n:
            time.sleep(pause)
        out.put(message)
        if next(answers) != message:
            raise RuntimeError("another message came back")
    out.put(None)
    return {"length": size + sum(map(len, answers))}


def outcome(e, ca):
    try:
        return {"status": 0, **call(e, ca)}
    except grpc.RpcError as problem:
        trailers = {k: v for k, v in problem.trailing_metadata() or () if isinstance(v, str)}
        return {"status": problem.code().value[0], "text": problem.details(), "trailers": trailers}


if sys.argv[1] == "serve":
    serve(sys.argv[2])
else:
    with ThreadPoolExecutor(100) as pool:
        for e in exchanges():
            pool.submit(finish, e, lambda e=e: outcome(e, sys.argv[2]))
