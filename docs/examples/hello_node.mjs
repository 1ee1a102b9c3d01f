// A member with Node 18 or later, without packages: answers /hello-node/NAME.

import http from "node:http";

const registry = process.env.HUB_REGISTRY__URL ?? "http://127.0.0.1:20000";
const port = Number(process.argv[2] ?? 9000);

const server = http.createServer((request, response) => {
  if (request.url === "/heart-beat") {
    response.end(); // to the registry, every 5 s
  } else if (request.url.startsWith("/hello-node/")) {
    response.end(`hello, ${request.url.slice("/hello-node/".length)}\n`);
  } else {
    response.writeHead(404).end("not found\n");
  }
});

server.listen(port, "127.0.0.1", async () => {
  // serve first, then register
  const body = JSON.stringify({ Name: "hello-node", Addr: `127.0.0.1:${server.address().port}` });
  const headers = { Prefer: "wait=1" }; // answered when the gateway knows
  const call = async (method) => {
    try {
      const signal = AbortSignal.timeout(5000);
      const reply = await fetch(`${registry}/services`, { method, body, headers, signal });
      const text = await reply.text();
      if (!reply.ok) console.error(`${method} ${registry}/services: ${text}`);
    } catch (error) {
      console.error(`${method} ${registry}/services: ${error.cause ?? error}`);
    }
  };
  await call("POST");
  // again and again: it costs nothing, and brings the member back if it was lost
  const timer = setInterval(() => call("POST"), 5000);
  const stop = async () => {
    clearInterval(timer);
    await call("DELETE"); // then no new requests come
    server.close();
    server.closeIdleConnections();
  };
  process.once("SIGTERM", stop);
  process.once("SIGINT", stop);
});
