"""Minimal members: they answer heartbeats with a given load, accept pushes, and stream a log. All of them run on one
event loop in its own thread."""

import asyncio
import json
import threading
import urllib.request
from urllib.parse import parse_qs, urlsplit


class Member:
    """One instance. Its next heartbeat reports `requests` and `in_flight`."""

    def __init__(self, name, requires=(), log_id=None, **more):
        self.name = name
        self.more = more
        self.requires = list(requires)
        self.requests = 0
        self.in_flight = 0
        self.reports_load = True
        self.log_id = log_id
        self.addr = None
        self.heartbeats = 0
        self.tail_queries = []
        self.last_ids = []
        self._server = None
        self._tails = set()
        self._connections = set()
        self._seq = 0

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.addr = f"{host}:{port}"

    async def die(self):
        """Stops without deregistering."""
        self._server.close()
        for writer in list(self._connections):
            writer.transport.abort()

    def info(self):
        return {"Name": self.name, "Addr": self.addr, "RequiredServices": self.requires, **self.more}

    async def _serve(self, reader, writer):
        self._connections.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ")
                headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
                if "content-length" in headers:
                    await reader.readexactly(int(headers["content-length"]))
                url = urlsplit(target)
                if url.path == "/heart-beat":
                    self.heartbeats += 1
                    load = {"Status": "serving", "Requests": self.requests, "InFlight": self.in_flight}
                    await self._answer(writer, json.dumps(load).encode() if self.reports_load else b"")
                elif url.path == "/services":
                    await self._answer(writer, b"")
                elif method == "GET" and url.path == "/log/tail" and self.log_id:
                    self.last_ids.append(headers.get("last-event-id"))
                    await self._tail(reader, writer, parse_qs(url.query))
                    return
                else:
                    await self._answer(writer, b"", "404 Not Found")
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    @staticmethod
    async def _answer(writer, body, status="200 OK"):
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    async def _tail(self, reader, writer, query):
        self.tail_queries.append(query)
        queue = asyncio.Queue()
        wanted = query.get("contains", [""])[0]
        entry = (queue, wanted)
        self._tails.add(entry)
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + b": connected\n\n")
        gone = asyncio.ensure_future(reader.read(1))
        try:
            while True:
                text = asyncio.ensure_future(queue.get())
                await asyncio.wait((text, gone), return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    text.cancel()
                    return
                writer.write(text.result())
                await writer.drain()
        finally:
            gone.cancel()
            self._tails.discard(entry)

    async def say(self, message, source="visit", **more):
        """Sends an entry to all followers of this instance."""
        self._seq += 1
        entry = {
            "ts": "2026-11-23T08:07:11.123456Z",
            "seq": self._seq,
            "instance": self.log_id,
            "source": source,
            "msg": message,
            **more,
        }
        text = f"id: {self.log_id}:{self._seq}\ndata: {json.dumps(entry)}\n\n".encode()
        for queue, wanted in self._tails:
            if wanted in message:
                queue.put_nowait(text)


class Members:
    """Starts members and registers them."""

    def __init__(self, registry, token=None):
        self.registry = registry
        self.token = token
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.all = []

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def join(self, name, count=1, **kinds):
        joined = []
        for _ in range(count):
            member = Member(name, **kinds)
            self.call(member.start())
            self.register(member)
            joined.append(member)
        self.all += joined
        return joined

    def register(self, member):
        self._send("POST", member)

    def leave(self, member):
        self._send("DELETE", member)
        self.call(member.die())

    def _send(self, method, member):
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        body = json.dumps(member.info()).encode()
        request = urllib.request.Request(f"{self.registry}/services", body, headers, method=method)
        urllib.request.urlopen(request, timeout=10).read()

    def close(self):
        self.call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _end(self):
        for member in self.all:
            await member.die()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
