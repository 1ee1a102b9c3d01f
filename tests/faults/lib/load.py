"""The load: visits and entries at a steady rate through all gateways, whether earlier ones were answered or not.

    load.py RATE GATEWAY…      (host:port)

Writes one line per request to stdout: `BEGUN TOOK KIND STATUS NUMBER PROBLEM`, with times in seconds of the monotonic
clock, and once in a while `mark BEGUN`: every request that began before that has its line. Ends with its stdin.
"""

import asyncio
import collections
import sys
import time

TIMEOUT = 15
TICK = 0.02
MARK = 0.25
REQUESTS = {
    "visit": b"GET /visit HTTP/1.1\r\nHost: hub\r\n\r\n",
    "entry": b"POST /log HTTP/1.1\r\nHost: hub\r\nContent-Length: 5\r\n\r\nhello",
}


class Connection(asyncio.Protocol):
    """A connection to a gateway, for one request at a time."""

    def __init__(self):
        self.buffer, self.reply, self.transport = b"", None, None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if not end or self.reply is None:
            return
        lines = head.split(b"\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in lines[1:])
        if len(body) < int(fields[b"content-length"]):
            return
        self.buffer = b""
        self.settle((int(lines[0].split()[1]), fields, body))

    def connection_lost(self, error):
        self.transport = None
        self.settle(OSError(f"the connection was closed: {error}"))

    def settle(self, result):
        if self.reply is not None and not self.reply.done():
            if isinstance(result, OSError):
                self.reply.set_exception(result)
            else:
                self.reply.set_result(result)

    async def ask(self, request):
        self.reply = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        async with asyncio.timeout(TIMEOUT):
            return await self.reply


class Load:
    def __init__(self, rate, gateways):
        self.rate, self.gateways = rate, gateways
        self.idle = {gateway: collections.deque() for gateway in gateways}
        self.in_flight = {}

    async def connection(self, gateway):
        while self.idle[gateway]:
            connection = self.idle[gateway].pop()
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        host, _, port = gateway.partition(":")
        _, connection = await asyncio.get_running_loop().create_connection(Connection, host, int(port))
        return connection

    async def request(self, turn, kind, gateway):
        begun = self.in_flight[turn] = time.monotonic()
        status, number, problem = 0, 0, ""
        try:
            connection = await self.connection(gateway)
            status, fields, body = await connection.ask(REQUESTS[kind])
            self.idle[gateway].append(connection)
            if status != 200:
                problem = f"retry-after={fields.get(b'retry-after', b'').decode()} {body[:300]!r}"
            elif kind == "visit":
                number = int(body)
        except (OSError, TimeoutError, ValueError) as error:
            problem = repr(error)
        del self.in_flight[turn]
        print(f"{begun:.6f} {time.monotonic() - begun:.6f} {kind} {status} {number} {gateway} {problem}")

    async def run(self, ended):
        start, turn, marked, tasks = time.monotonic(), 0, 0, set()
        while not ended.is_set() or tasks:
            now = time.monotonic()
            # A load that was held up does not catch up, so that it stays bounded.
            due = int((now - start) * self.rate)
            turn = max(turn, due - self.rate // 10)
            while turn < due and not ended.is_set():
                kind = ("visit", "entry")[turn % 2]
                gateway = self.gateways[turn // 2 % len(self.gateways)]
                task = asyncio.create_task(self.request(turn, kind, gateway))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                turn += 1
            if now - marked > MARK:
                marked = now
                print(f"mark {min(self.in_flight.values(), default=now):.6f}", flush=True)
            await asyncio.sleep(TICK)


async def main():
    rate, *gateways = sys.argv[1:]
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await Load(int(rate), gateways).run(ended)


if __name__ == "__main__":
    asyncio.run(main())
