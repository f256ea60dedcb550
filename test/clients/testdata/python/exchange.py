"""What the Python clients have in common."""

import json
import sys
import threading
import time

PATTERN = bytes(range(251))
output = threading.Lock()


def exchanges():
    for line in sys.stdin:
        yield json.loads(line)


def pieces(e):
    """The body of a request: two halves, with a pause between them."""
    whole = (PATTERN * (e["body"] // 251 + 1))[:e["body"]]
    for n, half in enumerate((whole[:len(whole) // 2], whole[len(whole) // 2:])):
        for i in range(0, len(half), 65536):
            yield n, half[i:i + 65536]


class Body:
    def __init__(self, e):
        self.e = e

    def __iter__(self):
        paused = not self.e["pause"]
        for n, piece in pieces(self.e):
            if n and not paused:
                paused = True
                time.sleep(self.e["pause"])
            yield piece


class LongBody(Body):
    """A body whose length is said before."""

    def __len__(self):
        return self.e["body"]


def finish(e, act):
    try:
        report(e, act())
    except Exception as problem:
        report(e, {"error": f"{type(problem).__name__}: {problem}"})


def report(e, result):
    with output:
        print(json.dumps({"id": e["id"], **result}), flush=True)
