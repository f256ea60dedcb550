// The application of the battery on Node: `node server.js PORT [h2]`.
"use strict";
const { Readable } = require("node:stream");
const crypto = require("node:crypto");
const { setTimeout: sleep } = require("node:timers/promises");
const { WebSocketServer } = require("ws");


// pieces are a body that waits for its reader: HTTP/2 sessions of Node refuse streams above 10 MB of what is buffered.
function* pieces(size) {
  const whole = pattern(size);
  for (let i = 0; i < size; i += 65536) {
    yield whole.subarray(i, i + 65536);
  }
}
const pattern = (size) => Buffer.alloc(size, Buffer.from(Array.from({ length: 251 }, (_, i) => i)));

async function sum(request, nap) {
  await sleep(nap * 1000);
  const digest = crypto.createHash("sha256");
  let length = 0;
  for await (const piece of request) {
    length += piece.length;
    digest.update(piece);
  }
  return JSON.stringify({ length, sha256: digest.digest("hex") });
}

async function answer(request, response) {
  const url = new URL(request.url, "http://node");
  const [, what, argument] = url.pathname.split("/");
  switch (what) {
    case "bytes":
      response.setHeader("content-length", argument);
      return Readable.from(pieces(Number(argument))).pipe(response);
    case "chunks":
      return Readable.from(pieces(Number(argument))).pipe(response);
    case "late":
      await sleep(Number(argument) * 1000);
      return response.end("late");
    case "pause":
      response.write("a");
      await sleep(Number(argument) * 1000);
      return response.end("b");
    case "sum":
      return response.end(await sum(request, Number(url.searchParams.get("nap") ?? 0)));
    case "status":
      response.statusCode = Number(argument);
      return response.end();
    case "cookies":
      response.setHeader("set-cookie", ["a=1; Path=/", "b=2; Path=/"]);
      return response.end();
    case "trailers":
      if (response.stream) { // HTTP/2
        response.addTrailers({ "x-trailer": "last" });
      } else {
        response.setHeader("trailer", "x-trailer");
        response.write("body");
        response.addTrailers({ "x-trailer": "last" });
        return response.end();
      }
      return response.end("body");
    case "hints":
      response.writeEarlyHints({ link: "</style.css>; rel=preload" });
      return response.end("hinted");
    default:
      return response.end(JSON.stringify({ method: request.method, path: request.url, headers: request.headers }));
  }
}

const [port, version] = process.argv.slice(2);
const handle = (request, response) => answer(request, response).catch((e) => response.destroy(e));
const server = version === "h2" ? require("node:http2").createServer(handle) : require("node:http").createServer(handle);
if (version !== "h2") {
  new WebSocketServer({ server }).on("connection", (socket) => socket.on("message", (data, binary) => socket.send(data, { binary })));
}
server.listen(Number(port), "127.0.0.1");
