#!/usr/bin/env python3
"""Drives every bound on the memory of gateway, log and visit to its end, and prints the peak beside the container's limit.

    cargo build --profile dist --bins
    tests/bench/gateway/attack.py [--bin target/dist] [--limit-mib 256] [--scale 1] [--only unread-h2,heads-h1]

Each attack has a process with its default configuration to itself, runs for at most 30 s from up to 9,500 connections
of addresses in 127.1.0.0/16, and reads nothing, or as little as it needs. Meanwhile an honest client at 127.0.0.1 asks
twice a second: through the gateway another service, log and visit whether they live. Attacks whose names begin with
"log-" and "visit-" go to those services, those with "h2c-" through the gateway to an instance that speaks HTTP/2. Printed are
the peak resident memory and how many of the honest requests were answered within 5 s. Exits with 1 if a peak exceeds the
container's limit (or --limit-mib), or if fewer than half of the honest requests were answered. --scale 0.1 runs a tenth of
each attack.

This script is attacker, instance and honest client. All traffic stays on 127.0.0.0/8, and every process that is started
is stopped at the end.
"""

import argparse
import errno
import multiprocessing
import resource
import selectors
import socket
import struct
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from bench import HERE, Run, free_port, start_gateway, wait_for
from memory import resident_mb

# IP_BIND_ADDRESS_NO_PORT: the port is chosen when the connection is made, so that all addresses share one range.
NO_PORT = 24
BIG = bytes(1 << 20)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_WINDOW = (1 << 31) - 1
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
ACK, END_STREAM, END_HEADERS = 1, 1, 4


# The instance


class Instance(multiprocessing.Process):
    """Answers /echo at once, /echo/big with endless bytes, /echo/tail with a head alone, an upgrade with 101 and endless
    bytes, and everything else never; reads no body below /echo/unread."""

    def __init__(self):
        super().__init__(daemon=True)
        # Of its own, since descriptors are limited per process.
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]

    def run(self):
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ, None)
        self.unread = []  # connections that are not read
        while True:
            for key, _ in self.selector.select():
                try:
                    self.accept() if key.data is None else key.data(key.fileobj)
                except OSError:
                    self.close(key.fileobj)

    def close(self, sock):
        if sock is not self.listener:
            self.selector.unregister(sock)
            sock.close()

    def accept(self):
        sock, _ = self.listener.accept()
        sock.setblocking(False)
        read = bytearray()
        self.selector.register(sock, selectors.EVENT_READ, lambda sock: self.read(sock, read))

    def read(self, sock, read):
        part = sock.recv(1 << 16)
        if not part:
            return self.close(sock)
        if read is None:
            return None
        read += part
        if b"\r\n\r\n" not in read:
            return None
        head = bytes(read)
        read.clear()
        path = head.split(b" ", 2)[1]
        if b"\r\nupgrade:" in head.lower():
            sock.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: chat\r\nconnection: upgrade\r\n\r\n")
            self.selector.modify(sock, selectors.EVENT_WRITE, lambda sock: sock.send(BIG))
        elif path.startswith(b"/echo/big"):
            sock.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1099511627776\r\n\r\n")
            self.selector.modify(sock, selectors.EVENT_WRITE, lambda sock: sock.send(BIG))
        elif path.startswith(b"/echo/tail"):
            sock.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            self.selector.modify(sock, selectors.EVENT_READ, lambda sock: self.read(sock, None))
        elif path.startswith(b"/echo/unread"):
            self.selector.unregister(sock)
            self.unread.append(sock)
        elif path.startswith(b"/echo/silent"):
            self.selector.modify(sock, selectors.EVENT_READ, lambda sock: self.read(sock, None))
        else:
            sock.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        return None


class H2Instance(multiprocessing.Process):
    """Speaks HTTP/2: answers every stream with as much as it may send, and reads no body. It understands no header block."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self.listener.getsockname()[1]

    def run(self):
        while True:
            sock, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        read = sock.makefile("rb")
        try:
            read.read(len(PREFACE))
            sock.sendall(frame(SETTINGS, 0, 0))
            while head := read.read(9):
                length, kind, flags, stream = int.from_bytes(head[:3]), head[3], head[4], int.from_bytes(head[5:])
                payload = read.read(length)
                if kind == SETTINGS and not flags & ACK:
                    sock.sendall(frame(SETTINGS, ACK, 0))
                elif kind == PING and not flags & ACK:
                    sock.sendall(frame(PING, ACK, 0, payload))
                elif kind == HEADERS and flags & END_STREAM:
                    # 200, and the window of a new stream.
                    sock.sendall(frame(HEADERS, END_HEADERS, stream, b"\x88") + window(stream, 65_535))
                elif kind == WINDOW_UPDATE and stream:
                    sock.sendall(window(stream, int.from_bytes(payload)))
        except OSError:
            pass
        sock.close()


# HTTP/2 by hand


def window(stream, size):
    """So many bytes of data."""
    whole, rest = divmod(size, 16_384)
    return frame(DATA, 0, stream, bytes(16_384)) * whole + (frame(DATA, 0, stream, bytes(rest)) if rest else b"")


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(text):
    return bytes((len(text),)) + text if len(text) < 127 else bytes((127, (len(text) - 127) % 128 + 128, (len(text) - 127) // 128)) + text


def fields(path, method=b"GET", more=()):
    """A header block without compression."""
    pairs = [(b":method", method), (b":scheme", b"http"), (b":authority", b"localhost"), (b":path", path), *more]
    return b"".join(b"\x00" + literal(name) + literal(value) for name, value in pairs)


def start_h2(window=MAX_WINDOW):
    """The preface, a window per stream, and the largest window for the connection."""
    settings = struct.pack(">HI", 4, window)
    return PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", MAX_WINDOW - 65_535))


def get_h2(stream, path):
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, fields(path))


# The attacks: how many connections, and what each of them sends. `rest`, if there is one, is sent again and again.


def get(path, more=b""):
    return b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n" + more + b"\r\n"


def post(path, length):
    return b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length


# Fewer than the gateway takes, which is half of the files that it may open: the honest client needs a place, too.
MANY = min(9_500, resource.getrlimit(resource.RLIMIT_NOFILE)[1] * 45 // 100)
LARGE_FIELDS = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(30))
MANY_FIELDS = b"".join(b"X-%d: y\r\n" % n for n in range(95))
STREAMS = range(1, 2 * 120, 2)
# One byte for each field, from the dynamic table: as many as may be sent before a head counts as too large.
INDEXED = b"\x40" + literal(b"a") + literal(b"b") + b"\xbe" * 700


def rapid_reset(count=400):
    cancel = struct.pack(">I", 8)
    pairs = (get_h2(n, b"/echo/silent") + frame(RST_STREAM, 0, n, cancel) for n in range(1, 2 * count, 2))
    return start_h2() + b"".join(pairs)


def upload_h2(path):
    head = frame(HEADERS, END_HEADERS, 1, fields(path, b"POST"))
    # As much as a client may send before it has heard of other windows.
    return start_h2() + head + window(1, 65_535)


def ndjson():
    lines = b'{"msg":"' + b"x" * 80 + b'"}\n'
    body = lines * 10_000
    head = b"POST /log HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def streams(path, window=MAX_WINDOW):
    return start_h2(window) + b"".join(get_h2(n, path) for n in STREAMS)


ATTACKS = {
    "idle-h1": (MANY, get(b"/echo"), None),
    "idle-h2": (MANY, start_h2(), None),
    "heads-h1": (MANY, b"GET /echo HTTP/1.1\r\nHost: localhost\r\n" + LARGE_FIELDS, None),
    "heads-h2": (MANY, start_h2() + frame(HEADERS, END_STREAM, 1, fields(b"/echo") + INDEXED), None),
    "continuation-h2": (500, start_h2() + frame(HEADERS, END_STREAM, 1, fields(b"/echo")), frame(CONTINUATION, 0, 1, b"")),
    "large-heads-in-flight": (MANY, get(b"/echo/silent", LARGE_FIELDS), None),
    "many-fields-in-flight": (MANY, get(b"/echo/silent", MANY_FIELDS), None),
    "pipelined": (MANY, get(b"/echo/tail") + get(b"/echo") * 1500, None),
    "replays": (5_000, post(b"/echo/silent", 65_536) + bytes(65_536), None),
    "slow-bodies": (MANY, post(b"/echo/silent", 65_536) + bytes(8_000), None),
    "uploads-h1": (5_000, post(b"/echo/unread", 1 << 30), bytes(1 << 16)),
    "uploads-h2": (MANY, upload_h2(b"/echo/unread"), None),
    "unread-h1": (5_000, get(b"/echo/big"), None),
    "unread-h2": (35, streams(b"/echo/big"), None),
    "closed-windows-h2": (35, streams(b"/echo/big", 1), None),
    "tails-h1": (MANY, get(b"/echo/tail"), None),
    "tails-h2": (35, streams(b"/echo/tail"), None),
    "tunnels": (2_500, get(b"/echo/x", b"Connection: upgrade\r\nUpgrade: chat\r\n"), None),
    "rapid-reset": (200, rapid_reset(), None),
    "pings-h2": (200, start_h2(), frame(PING, 0, 0, bytes(8)) * 1000),
    "h2c-unread-h1": (5_000, get(b"/h2c/x"), None),
    "h2c-unread-h2": (35, streams(b"/h2c/x"), None),
    "h2c-uploads-h1": (5_000, post(b"/h2c/x", 1 << 30), bytes(1 << 16)),
    "h2c-uploads-h2": (MANY, upload_h2(b"/h2c/x"), None),
    "log-idle-h1": (1_500, get(b"/livez"), None),
    "log-heads-h1": (1_500, b"GET /log HTTP/1.1\r\nHost: localhost\r\n" + LARGE_FIELDS, None),
    "log-slow-bodies": (1_500, post(b"/log", 1 << 20) + bytes(1 << 16), None),
    "log-large-entries": (1_500, post(b"/log", 256 << 10) + b"x" * (256 << 10), post(b"/log", 256 << 10) + b"x" * (256 << 10)),
    "log-batches": (200, ndjson(), ndjson()),
    "log-unread-reads": (1_500, post(b"/log", 64 << 10) + b"x" * (64 << 10) + get(b"/log?limit=1000") * 8, None),
    "log-unread-tails": (1_500, post(b"/log", 64 << 10) + b"x" * (64 << 10) + get(b"/log/tail"), None),
    "log-streams-h2": (35, streams(b"/log/tail"), None),
    "log-uploads-h2": (1_500, upload_h2(b"/log"), None),
    "log-heads-h2": (1_500, start_h2() + frame(HEADERS, END_STREAM, 1, fields(b"/log") + INDEXED), None),
    "visit-idle-h1": (1_500, get(b"/livez"), None),
    "visit-heads-h1": (1_500, b"GET /visit HTTP/1.1\r\nHost: localhost\r\n" + LARGE_FIELDS, None),
    "visit-slow-bodies": (1_500, post(b"/visit", 1 << 20) + bytes(1 << 16), None),
    "visit-unread": (1_500, get(b"/visit") * 2_000, get(b"/visit") * 2_000),
    "visit-streams-h2": (35, streams(b"/visit"), None),
    "visit-uploads-h2": (1_500, upload_h2(b"/visit"), None),
}

# MiB of each container in docker-compose.yml.
LIMITS = {"gateway": 320, "log": 448, "visit": 192}


class Attack:
    """The connections of one attack."""

    def __init__(self, port, count, first, rest):
        self.port, self.count, self.first, self.rest = port, count, first, rest
        self.selector = selectors.DefaultSelector()
        self.opened, self.parked = 0, []

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            # A few hundred at a time, or the accept queue overflows.
            for _ in range(min(200, self.count - self.opened)):
                self.open()
            for key, _ in self.selector.select(0.05):
                self.write(key.fileobj, key.data)

    def open(self):
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, NO_PORT, 1)
        # Nothing is read: the smaller the kernel's buffer, the sooner the gateway has to keep what waits.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host = self.opened % 60_000
        sock.bind((f"127.1.{host // 250}.{host % 250 + 1}", 0))
        self.opened += 1
        if sock.connect_ex(("127.0.0.1", self.port)) not in (0, errno.EINPROGRESS):
            return sock.close()
        return self.selector.register(sock, selectors.EVENT_WRITE, [self.first, 0])

    def write(self, sock, state):
        data, at = state
        try:
            at += sock.send(memoryview(data)[at : at + (1 << 18)])
        except BlockingIOError:
            return
        except OSError:
            self.selector.unregister(sock)
            sock.close()
            return
        if at < len(data):
            state[1] = at
        elif self.rest:
            state[:] = [self.rest, 0]
        else:
            # Kept open: nothing more is sent, and nothing is read.
            self.selector.unregister(sock)
            self.parked.append(sock)

    def close(self):
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        for sock in self.parked:
            sock.close()
        self.selector.close()


class Honest(threading.Thread):
    """An honest client."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.errors = []
        self.url, self.asked, self.answered, self.over = url, 0, 0, False

    def run(self):
        while not self.over:
            self.asked += 1
            try:
                self.answered += urllib.request.urlopen(self.url, timeout=5).status == 200
            except OSError as error:
                self.errors.append(str(error))
            time.sleep(0.5)


def start_service(run, binaries, name):
    """Starts log or visit, and what it needs. Returns its process, its port, and what the honest client asks for."""
    registry, log, port = free_port(), free_port(), free_port()
    urls = {"HUB_REGISTRY__URL": f"http://127.0.0.1:{registry}"}
    run.start("0-1", [binaries / "registry"], HUB_LISTEN=f"127.0.0.1:{registry}")
    wait_for(f"http://127.0.0.1:{registry}/livez")
    if name == "visit":
        child = run.start("0-1", [binaries / "log"], HUB_LISTEN=f"127.0.0.1:{log}", HUB_LOG__FILE=str(run.dir / "log"), **urls)
        wait_for(f"http://127.0.0.1:{log}/livez")
    more = {"HUB_LOG__FILE": str(run.dir / "attacked" / "log")} if name == "log" else {}
    child = run.start("0-1", [binaries / name], HUB_LISTEN=f"127.0.0.1:{port}", **urls, **more)
    wait_for(f"http://127.0.0.1:{port}/readyz")
    return child, port, f"http://127.0.0.1:{port}/livez"


def start(run, binaries, name, instance, h2):
    target = name.split("-")[0]
    if target in ("log", "visit"):
        return start_service(run, binaries, target)
    meta = {"h2c": {"addr": h2.port, "meta": {"protocol": "h2c"}}}
    child, port, _ = start_gateway(run, binaries, instance.port, services=("echo", "other", "h2c"), instances=meta)
    url = f"http://127.0.0.1:{port}/other"
    wait_for(url)
    return child, port, url


def measure(binaries, name, scale, seconds):
    """The process's memory before an attack and at its peak, and the honest client."""
    count, first, rest = ATTACKS[name]
    instance, h2 = Instance(), H2Instance()
    instance.start()
    h2.start()
    with tempfile.TemporaryDirectory(prefix="attack-") as directory:
        run = Run(Path(directory))
        try:
            child, port, url = start(run, binaries, name, instance, h2)
            before = peak = resident_mb(child.pid)
            honest = Honest(url)
            honest.start()
            attack = Attack(port, max(1, int(count * scale)), first, rest)
            attacker = threading.Thread(target=attack.run, args=(seconds,), daemon=True)
            attacker.start()
            while attacker.is_alive():
                peak = max(peak, resident_mb(child.pid))
                attacker.join(0.05)
            honest.over = True
            attack.close()
            return before, peak, honest
        finally:
            run.stop_all()
            for process in (instance, h2):
                process.kill()
                process.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=HERE.parents[2] / "target/dist")
    parser.add_argument("--limit-mib", type=float, help="instead of that of the process's container")
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--only", default=",".join(ATTACKS))
    args = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(f"{'attack':24}{'before':>8}{'peak':>8}{'limit':>8} MiB   honest requests answered", flush=True)
    failed = False
    for name in args.only.split(","):
        limit = args.limit_mib or LIMITS.get(name.split("-")[0], LIMITS["gateway"])
        before, peak, honest = measure(args.bin.resolve(), name, args.scale, min(args.seconds, 30))
        bad = peak > limit or honest.answered * 2 < honest.asked
        failed |= bad
        mark = "  <- over" if bad else ""
        if bad and honest.errors:
            print(f"  the honest client got: {', '.join(sorted(set(honest.errors)))}", flush=True)
        print(f"{name:24}{before:8.1f}{peak:8.1f}{limit:8.0f}       {honest.answered} of {honest.asked}{mark}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
