#!/usr/bin/env python3
"""Measures the gateway's memory while a very large body passes through it, in either direction.

    cargo build --profile dist -p hubspoke-gateway -p hubspoke-registry --bins
    tests/bench/gateway/memory.py [--bin target/dist] [--gib 10] [--most-mb 8]

Prints the resident memory before and after each body, and the maximum meanwhile (sampled every 50 ms). Exits with 1 if
a body adds more than --most-mb. This script is both client and instance: it generates the bytes and discards them.
All traffic stays on 127.0.0.1, and every process that is started is stopped at the end.
"""

import argparse
import re
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench import HERE, Run, start_gateway

BLOCK = bytes(1 << 20)


def send(sock, size):
    left = size
    while left:
        left -= sock.send(BLOCK[: min(left, len(BLOCK))])


def receive(sock, size):
    left, buffer = size, bytearray(1 << 20)
    while left:
        read = sock.recv_into(buffer, min(left, len(buffer)))
        if read == 0:
            raise EOFError(f"the body ended {left} bytes too early")
        left -= read


def head(sock):
    """Reads a head, and no byte after it."""
    text = b""
    while not text.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            return None
        text += byte
    return text.decode("latin-1")


def length(text):
    found = re.search(r"content-length: (\d+)", text, re.IGNORECASE)
    return int(found.group(1)) if found else 0


def instance(size):
    """Replies to GET /echo/large with `size` bytes, and to anything else once it has read the whole body."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(sock):
        while (text := head(sock)) is not None:
            receive(sock, length(text))
            body = size if text.startswith("GET /echo/large ") else 0
            sock.sendall(f"HTTP/1.1 200 OK\r\ncontent-length: {body}\r\n\r\n".encode())
            send(sock, body)

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def resident_mb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


def download(port, size):
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET /echo/large HTTP/1.1\r\nHost: a\r\n\r\n")
        text = head(sock)
        if " 200 " not in text.splitlines()[0] or length(text) != size:
            raise ValueError(f"unexpected reply: {text}")
        receive(sock, size)


def upload(port, size):
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(f"PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode())
        send(sock, size)
        text = head(sock)
        if " 200 " not in text.splitlines()[0]:
            raise ValueError(f"unexpected reply: {text}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=HERE.parents[2] / "target/dist")
    parser.add_argument("--gib", type=float, default=10)
    parser.add_argument("--most-mb", type=float, default=8)
    args = parser.parse_args()
    size, worst = int(args.gib * (1 << 30)), 0.0
    with tempfile.TemporaryDirectory(prefix="memory-") as directory:
        run = Run(Path(directory))
        try:
            child, port, _ = start_gateway(run, args.bin, instance(size))
            for direction, transfer in (("reply", download), ("request", upload)):
                before, began, most = resident_mb(child.pid), time.monotonic(), 0.0
                completed = []
                thread = threading.Thread(target=lambda: completed.append(transfer(port, size)))
                thread.start()
                while thread.is_alive():
                    most = max(most, resident_mb(child.pid))
                    thread.join(0.05)
                if not completed:
                    sys.exit(f"the body of the {direction} did not pass completely")
                seconds, after = time.monotonic() - began, resident_mb(child.pid)
                worst = max(worst, most - before)
                print(
                    f"{direction} of {args.gib:g} GiB in {seconds:.1f} s: {before:.1f} MB before, {most:.1f} at most, {after:.1f} after",
                    flush=True,
                )
        finally:
            run.stop_all()
    sys.exit(1 if worst > args.most_mb else 0)


if __name__ == "__main__":
    main()
