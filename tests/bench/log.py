#!/usr/bin/env python3
"""Benchmarks of the log service. The services run on core 0, the load on core 1.

    cargo build --profile dist -p hubspoke-log -p hubspoke-registry -p hubspoke-gateway -p hubspoke-visit
    python3 tests/bench/log.py            # all, in about two minutes
    python3 tests/bench/log.py single     # one of: single synced batch query tail visits copies

`visits` measures the whole path, gateway -> visit -> log, with all services on core 0; `copies` compares entries that
are stored once and twice.

Needs wrk, taskset and grep. Prints a table. Compare the CPU time per request: it depends less than requests per
second on what else the machine does.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
LINE = "visit 123456 from somewhere, a line of some sixty bytes length"
SECONDS = int(os.environ.get("SECONDS", "5"))
TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(url):
    deadline = time.time() + 30
    while True:
        try:
            return urllib.request.urlopen(url, timeout=1).read()
        except OSError:
            if time.time() > deadline:
                raise
            time.sleep(0.05)


class Service:
    """One service on core 0, without a registry unless the settings name one."""

    def __init__(self, name, folder, **settings):
        self.port = free_port()
        env = {
            "HUB_LISTEN": f"127.0.0.1:{self.port}",
            "HUB_REGISTRY__URL": "http://127.0.0.1:9",
            "HUB_TELEMETRY__LOG": "error",
        } | settings
        binary = os.path.join(TARGET, "dist", name)
        self.process = subprocess.Popen(["taskset", "-c", "0", binary], env=env, cwd=folder)
        if "HUB_CONTROL_LISTEN" not in settings:
            wait_for(self.url("/livez"))

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def cpu(self):
        """User and system CPU seconds so far."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(") ", 1)[1].split()
        return int(fields[11]) / TICK, int(fields[12]) / TICK

    def memory(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmHWM:\s+(\d+)", status.read())[1]) // 1024

    def metric(self, name):
        text = urllib.request.urlopen(self.url("/metrics")).read().decode()
        return float(re.search(rf"^{name}\S* (\S+)$", text, re.M)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


class Log(Service):
    def __init__(self, folder, **settings):
        self.file = os.path.join(folder, "services.log")
        own = {"HUB_LOG__FILE": self.file, "HUB_LOG__ROTATE__SIZE": "0B", "HUB_LOG__MAX_BATCH": "8MiB"}
        super().__init__("log", folder, **own, **settings)


def wrk(log, folder, body, kind, connections):
    script = os.path.join(folder, "post.lua")
    with open(script, "w") as lua:
        lua.write(f'wrk.method="POST"\nwrk.headers["Content-Type"]="{kind}"\nwrk.body={json.dumps(body)}\n')
    before = log.cpu()
    figures = load(connections, "-s", script, log.url("/log"))
    after = log.cpu()
    return figures | {
        "user": (after[0] - before[0]) / figures["requests"] * 1e6,
        "system": (after[1] - before[1]) / figures["requests"] * 1e6,
    }


def load(connections, *args):
    out = subprocess.run(
        ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}", "--latency", *args],
        capture_output=True, text=True, check=True,
    ).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    return {
        "requests": int(re.search(r"(\d+) requests in", out)[1]),
        "requests/s": float(re.search(r"Requests/sec:\s+(\S+)", out)[1]),
        "p99": re.search(r"99%\s+(\S+)", out)[1],
        "failed": int(failed[1]) if failed else 0,
    }


def report(name, figures, log, per_request=1):
    entries, writes = log.metric("hub_log_entries_total"), log.metric("hub_log_writes_total")
    print(
        f"{name:24} {figures['requests/s'] * per_request:12,.0f} entries/s  p99 {figures['p99']:>8}  "
        f"CPU {figures['user']:.1f} + {figures['system']:.1f} µs/request  {entries / writes:8.1f} entries/write  "
        f"peak {log.memory()} MiB  failed {figures['failed']}"
    )


def single(folder):
    for ack in ("written", "queued"):
        with tempfile.TemporaryDirectory(dir=folder) as inner, Log(inner, HUB_LOG__ACK=ack) as log:
            report(f"single lines, {ack}", wrk(log, inner, LINE, "text/plain", 64), log)


def synced(folder):
    with tempfile.TemporaryDirectory(dir=folder) as inner:
        with Log(inner, HUB_LOG__ACK="synced") as log:
            report("single lines, synced", wrk(log, inner, LINE, "text/plain", 64), log)
        times = []
        with open(os.path.join(inner, "probe"), "wb", buffering=0) as probe:
            for _ in range(200):
                probe.write(LINE.encode())
                start = time.perf_counter()
                os.fdatasync(probe.fileno())
                times.append(time.perf_counter() - start)
        times.sort()
        print(f"{'the disk alone':24} fdatasync p50 {times[100] * 1e3:.2f} ms, p99 {times[198] * 1e3:.2f} ms")


def batch(folder):
    body = "".join(json.dumps(f"{LINE} {n}") + "\n" for n in range(1000))
    with tempfile.TemporaryDirectory(dir=folder) as inner, Log(inner) as log:
        report("batches of 1,000 lines", wrk(log, inner, body, "application/x-ndjson", 8), log, 1000)


def fill(log, gigabytes):
    """Stores entries of 1,000 bytes until the file has this size."""
    body = "".join(json.dumps("x" * 900 + f" {n}") + "\n" for n in range(4000)).encode()
    connection = http.client.HTTPConnection("127.0.0.1", log.port)
    while os.path.getsize(log.file) < gigabytes * 2**30:
        connection.request("POST", "/log", body, {"Content-Type": "application/x-ndjson"})
        reply = connection.getresponse()
        assert reply.status == 200, reply.read()
        reply.read()


def query(folder):
    with tempfile.TemporaryDirectory(dir=folder) as inner, Log(inner) as log:
        fill(log, 0.5)
        urllib.request.urlopen(urllib.request.Request(log.url("/log"), b"a needle in the middle", method="POST")).read()
        fill(log, 1)
        ours, grep = [], []
        for _ in range(5):
            start = time.perf_counter()
            found = urllib.request.urlopen(log.url("/log?contains=needle&limit=0")).read()
            ours.append(time.perf_counter() - start)
            assert found.count(b"\n") == 1
            start = time.perf_counter()
            subprocess.run(["taskset", "-c", "0", "grep", "-c", "needle", log.file], check=True, capture_output=True)
            grep.append(time.perf_counter() - start)
        print(
            f"{'rare text in 1 GiB':24} {min(ours) * 1e3:.0f} ms, grep {min(grep) * 1e3:.0f} ms, "
            f"ratio {min(ours) / min(grep):.2f}  peak {log.memory()} MiB"
        )


def tail(folder):
    """Delay from the start of a request to its entry at a follower, at about 10,000 lines a second."""
    with tempfile.TemporaryDirectory(dir=folder) as inner, Log(inner) as log:
        delays = []
        ready = threading.Event()

        def follow():
            connection = http.client.HTTPConnection("127.0.0.1", log.port)
            connection.request("GET", "/log/tail")
            reply = connection.getresponse()
            reply.readline()
            ready.set()
            for line in reply:
                if line.startswith(b"data: "):
                    text = json.loads(line[6:])["msg"]
                    if text == "end":
                        return
                    delays.append(time.time() - float(text.split()[0]))

        follower = threading.Thread(target=follow)
        follower.start()
        ready.wait(10)
        connection = http.client.HTTPConnection("127.0.0.1", log.port)
        start = time.time()
        sent = 0
        while time.time() < start + SECONDS:
            now = time.time()
            body = "".join(f'"{now:.6f} {n}"\n' for n in range(100))
            connection.request("POST", "/log", body, {"Content-Type": "application/x-ndjson"})
            connection.getresponse().read()
            sent += 100
            time.sleep(max(0, start + sent / 10_000 - time.time()))
        rate = sent / (time.time() - start)
        connection.request("POST", "/log", "end")
        connection.getresponse().read()
        follower.join(30)
        delays.sort()
        print(
            f"{'tail':24} {rate:,.0f} lines/s, {len(delays)} of {sent} arrived, delay p50 "
            f"{delays[len(delays) // 2] * 1e3:.0f} ms, p99 {delays[len(delays) * 99 // 100] * 1e3:.0f} ms"
        )


def visits(folder):
    """Each visit is a request through the gateway, a number, and an acknowledged entry."""
    visits_with(folder, "visits, whole path", 1)


def copies(folder):
    """The same with two log instances, and each entry on one of them or on both."""
    for count in (1, 2):
        visits_with(folder, f"visits, copies {count} of 2", 2, HUB_LOG_CLIENT__COPIES=str(count))


def visits_with(folder, name, logs, **settings):
    with tempfile.TemporaryDirectory(dir=folder) as inner, contextlib.ExitStack() as stack:
        registry = stack.enter_context(Service("registry", inner))
        at = {"HUB_REGISTRY__URL": registry.url("")}
        control = {"HUB_CONTROL_LISTEN": f"127.0.0.1:{free_port()}"}
        services = {"gateway": [], "visit": [], "log": []}
        for n in range(logs):
            place = os.path.join(inner, f"log-{n}")
            os.mkdir(place)
            services["log"].append(stack.enter_context(Log(place, **at)))
        visit = stack.enter_context(Service("visit", inner, **at, **settings))
        gateway = stack.enter_context(Service("gateway", inner, **at, **control))
        services["visit"], services["gateway"] = [visit], [gateway]
        wait_for(gateway.url("/visit"))
        cpu_of = lambda group: sum(sum(service.cpu()) for service in group)
        before = {kind: cpu_of(group) for kind, group in services.items()}
        figures = load(64, gateway.url("/visit"))
        spent = {kind: cpu_of(group) - before[kind] for kind, group in services.items()}
        cpu = ", ".join(f"{kind} {spent[kind] / figures['requests'] * 1e6:.1f}" for kind in services)
        print(
            f"{name:24} {figures['requests/s']:12,.0f} visits/s   p99 {figures['p99']:>8}  "
            f"CPU {cpu} µs/visit  failed {figures['failed']}"
        )


ALL = {
    "single": single, "synced": synced, "batch": batch, "query": query, "tail": tail, "visits": visits, "copies": copies,
}


def main():
    chosen = sys.argv[1:] or list(ALL)
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        for name in chosen:
            ALL[name](folder)


if __name__ == "__main__":
    main()
