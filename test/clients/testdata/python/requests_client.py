"""Requests as a client: exchanges come as lines of JSON, results go as lines of JSON."""

import sys

sys.path.append(__file__.rpartition("/")[0])
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor

import requests
from exchange import Body, LongBody, exchanges, finish

shared = requests.Session()
adapter = requests.adapters.HTTPAdapter(pool_connections=64, pool_maxsize=64)
shared.mount("http://", adapter)
shared.mount("https://", adapter)


def once(session, e):
    headers = {name: value for name, value in e["headers"] or []}
    data = None
    if e["body"] >= 0:
        data = iter(Body(e)) if e["chunked"] else LongBody(e) if e["pause"] else b"".join(Body(e))
    answer = session.request(e["method"], e["url"], headers=headers, data=data, stream=True, timeout=120, verify=sys.argv[1], allow_redirects=False)
    length, digest, text = 0, hashlib.sha256(), b""
    for piece in answer.iter_content(65536):
        if not length and e["read"]:
            time.sleep(e["read"])
        length += len(piece)
        digest.update(piece)
        text += piece[:16384 - len(text)]
    version = {10: "HTTP/1.0", 11: "HTTP/1.1", 20: "HTTP/2"}[answer.raw.version]
    return {"status": answer.status_code, "version": version, "headers": {n.lower(): v for n, v in answer.headers.items()},
            "length": length, "sha256": digest.hexdigest(), "text": text.decode("latin-1")}


def run(e):
    def act():
        session = shared
        if e["again"]:
            session = requests.Session()
        result = once(session, e)
        if e["again"]:
            time.sleep(e["again"])
            result = once(session, e)
        return result
    finish(e, act)


with ThreadPoolExecutor(200) as waiting, ThreadPoolExecutor(2) as busy:
    for e in exchanges():
        (waiting if e["waits"] else busy).submit(run, e)
