// Node's fetch and ws as clients: exchanges come as lines of JSON, results go as lines of JSON.
"use strict";
const crypto = require("node:crypto");
const readline = require("node:readline");
const { setTimeout: sleep } = require("node:timers/promises");
const WebSocket = require("ws");

const pattern = (size) => Buffer.alloc(size, Buffer.from(Array.from({ length: 251 }, (_, i) => i)));

// body is the body of a request: two halves, with a pause between them.
async function* body(e) {
  const whole = pattern(e.body);
  const half = Math.floor(whole.length / 2);
  yield whole.subarray(0, half);
  await sleep(e.pause * 1000);
  yield whole.subarray(half);
}

async function once(e) {
  const options = { method: e.method, headers: e.headers ?? [], redirect: "manual", signal: AbortSignal.timeout(120_000) };
  if (e.body >= 0) {
    options.body = e.chunked || e.pause ? ReadableStream.from(body(e)) : pattern(e.body);
    options.duplex = "half";
  }
  const answer = await fetch(e.url, options);
  const digest = crypto.createHash("sha256");
  let length = 0;
  let text = "";
  for await (const piece of answer.body ?? []) {
    if (length === 0 && e.read) {
      await sleep(e.read * 1000);
    }
    length += piece.length;
    digest.update(piece);
    text += Buffer.from(piece.subarray(0, 16384 - text.length)).toString("latin1");
  }
  const headers = { ...Object.fromEntries(answer.headers), "set-cookie": answer.headers.getSetCookie().join(", ") };
  return { status: answer.status, version: "", headers, length, sha256: digest.digest("hex"), text };
}

// socket sends messages of some sizes that must come back, with silence between them.
function socket(e) {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(e.url.replace(/^http/, "ws"));
    const sizes = [...e.messages];
    const next = () => (sizes.length ? ws.send(Buffer.alloc(sizes[0])) : (resolve({ status: 101 }), ws.close()));
    ws.on("open", next);
    ws.on("error", reject);
    ws.on("close", () => reject(new Error("closed")));
    ws.on("message", async (data) => {
      const size = sizes.shift();
      if (data.length !== size) {
        reject(new Error(`a message of ${size} bytes came back as ${data.length}`));
      }
      await sleep(e.pause * 1000);
      next();
    });
  });
}

async function act(e) {
  if (e.messages) {
    return socket(e);
  }
  if (e.again) {
    await once(e);
    await sleep(e.again * 1000);
  }
  return once(e);
}

async function finish(e) {
  const result = await act(e).catch((error) => ({ error: `${error}: ${error.cause ?? ""}` }));
  console.log(JSON.stringify({ id: e.id, ...result }));
}

// Those that wait begin at once; of the others, two at a time.
const busy = [Promise.resolve(), Promise.resolve()];
let turn = 0;
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const e = JSON.parse(line);
  if (e.waits) {
    finish(e);
  } else {
    const lane = turn++ % busy.length;
    busy[lane] = busy[lane].then(() => finish(e));
  }
});
