#!/usr/bin/env python3
"""The gateway beside nginx, HAProxy and Caddy: what one request costs.

Each proxy has one core to itself; the load (wrk, h2load) and the instance (nginx) share the other. What is compared is
CPU time per request, read from /proc, and its ratio to nginx's in the same round: requests per second on two cores say
as much about the load generator as about the proxy.

    apt-get install nginx haproxy caddy wrk nghttp2-client
    cargo build --release -p hub-gateway -p hub-registry --bins
    (CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 saves the gateway a sixth and builds for minutes)
    tests/bench/gateway/bench.py [--bin target/release] [--seconds 5] [--rounds 3] [--only gateway,nginx] [--cases small-64]

Traffic goes to 127.0.0.1 alone, and everything started here is stopped here.
"""

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")
PROXY_CORE, LOAD_CORE = "0", "1"
PATHS = {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}

# Name: tool, connections, path, more arguments of the tool.
CASES = {
    "small-64": ("wrk", 64, "/echo", []),
    "small-512": ("wrk", 512, "/echo", []),
    "16k-64": ("wrk", 64, "/echo/16k", []),
    "16k-512": ("wrk", 512, "/echo/16k", []),
    "post64k-64": ("wrk", 64, "/echo", ["-s", str(HERE / "post.lua")]),
    "h2c-64": ("h2load", 64, "/echo", ["-m", "4"]),
}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(url):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            return urllib.request.urlopen(url, timeout=2).read()
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{url} does not answer")


class Run:
    """Everything that was started, so that it can be stopped."""

    def __init__(self, directory):
        self.dir, self.children = directory, []

    def start(self, core, command, **env):
        log = open(self.dir / "log.txt", "a")
        env = {**os.environ, **PATHS, **env}
        child = subprocess.Popen(["taskset", "-c", core, *command], stdout=log, stderr=log, env=env)
        self.children.append(child)
        return child

    def stop(self, child):
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        self.children.remove(child)

    def stop_all(self):
        for child in reversed(list(self.children)):
            self.stop(child)

    def config(self, name, **values):
        text = (HERE / name).read_text()
        for key, value in {"DIR": self.dir, **values}.items():
            text = text.replace(f"@{key}@", str(value))
        path = self.dir / f"{values.get('PORT', 'x')}-{name}"
        path.write_text(text)
        return str(path)


def family(pid):
    """The process and all that it started."""
    pids = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            pids += family(int(child))
    return pids


def cpu_seconds(pid):
    total = 0
    for member in family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def peak_mb(pid):
    total = 0
    for member in family(pid):
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{member}/status").read_text())
        total += int(found.group(1)) if found else 0
    return total / 1024


def milliseconds(text):
    number, unit = re.match(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]


def load(case, port, h2_port, seconds):
    """Runs one load; says how many requests were answered well, how many not, and the latencies."""
    tool, connections, path, more = CASES[case]
    if tool == "wrk":
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *more, f"http://127.0.0.1:{port}{path}"]
    else:
        command = ["h2load", "-t1", f"-c{connections}", f"-D{seconds}", *more, f"http://127.0.0.1:{h2_port}{path}"]
    done = subprocess.run(["taskset", "-c", LOAD_CORE, *command], capture_output=True, text=True, timeout=seconds + 60)
    out = done.stdout
    if tool == "wrk":
        requests = int(re.search(r"(\d+) requests in", out).group(1))
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
        bad = (int(bad.group(1)) if bad else 0) + (sum(map(int, errors.groups())) if errors else 0)
        p50, p99 = (milliseconds(re.search(rf"\s{p}%\s+(\S+)", out).group(1)) for p in (50, 99))
        return requests, bad, p50, p99
    total = re.search(r"requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed", out)
    mean = re.search(r"time for request:\s+\S+\s+\S+\s+(\S+)", out)
    if not total or not mean:
        sys.exit(f"h2load said:\n{out}{done.stderr}")
    return int(total.group(2)), int(total.group(3)), milliseconds(mean.group(1)), float("nan")


def start_gateway(run, binaries, backend, core="0-1", workers=0):
    """A gateway with a registry that knows one instance of `echo`."""
    registry, control, port = free_port(), free_port(), free_port()
    quiet = {"HUB_TELEMETRY__LOG": "warn"}
    run.start(LOAD_CORE, [binaries / "registry"], HUB_LISTEN=f"127.0.0.1:{registry}", **quiet)
    wait_for(f"http://127.0.0.1:{registry}/livez")
    info = json.dumps({"Name": "echo", "Addr": f"127.0.0.1:{backend}", "RequiredServices": None})
    urllib.request.urlopen(f"http://127.0.0.1:{registry}/services", info.encode(), timeout=5).read()
    child = run.start(
        core,
        [binaries / "gateway"],
        HUB_LISTEN=f"127.0.0.1:{port}",
        HUB_CONTROL_LISTEN=f"127.0.0.1:{control}",
        HUB_REGISTRY__URL=f"http://127.0.0.1:{registry}",
        HUB_GATEWAY__EXPOSE="echo",
        HUB_GATEWAY__WORKERS=str(workers),
        **quiet,
    )
    wait_for(f"http://127.0.0.1:{control}/readyz")
    wait_for(f"http://127.0.0.1:{port}/echo")
    return child, port, port


def start_proxy(run, name, binaries, backend):
    port, h2_port = free_port(), free_port()
    ports = {"PORT": port, "H2PORT": h2_port, "BACKEND": backend}
    if name == "nginx":
        child = run.start(PROXY_CORE, ["nginx", "-c", run.config("nginx.conf", **ports)])
    elif name == "haproxy":
        child = run.start(PROXY_CORE, ["haproxy", "-f", run.config("haproxy.cfg", **ports)])
    elif name == "caddy":
        command = ["caddy", "run", "--adapter", "caddyfile", "--config", run.config("Caddyfile", **ports)]
        child = run.start(PROXY_CORE, command, GOMAXPROCS="1", HOME=str(run.dir))
    else:
        return start_gateway(run, binaries, backend, core=PROXY_CORE, workers=1)
    wait_for(f"http://127.0.0.1:{port}/echo")
    return child, port, h2_port


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=HERE.parents[2] / "target/release")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="nginx,gateway,haproxy,caddy")
    parser.add_argument("--cases", default=",".join(CASES))
    args = parser.parse_args()
    proxies = [name for name in args.only.split(",") if name == "gateway" or shutil.which(name, path=PATHS["PATH"])]
    cases = args.cases.split(",")
    results = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        directory = Path(directory)
        directory.chmod(0o755)  # the instance's worker is another user
        (directory / "16k").write_bytes(b"x" * 16384)
        run = Run(directory)
        try:
            backend = free_port()
            run.start(LOAD_CORE, ["nginx", "-c", run.config("backend.conf", BACKEND=backend)])
            wait_for(f"http://127.0.0.1:{backend}/echo")
            for case in cases:
                for _ in range(args.rounds):
                    for name in proxies:
                        child, port, h2_port = start_proxy(run, name, args.bin, backend)
                        load(case, port, h2_port, 1)
                        before = cpu_seconds(child.pid)
                        requests, bad, p50, p99 = load(case, port, h2_port, args.seconds)
                        cpu = cpu_seconds(child.pid) - before
                        row = (cpu / requests * 1e6, requests / args.seconds, p50, p99, peak_mb(child.pid), bad)
                        results.setdefault((case, name), []).append(row)
                        for started in run.children[1:][::-1]:
                            run.stop(started)
        finally:
            run.stop_all()
    print(f"{'case':12}{'proxy':10}{'CPU µs/req':>12}{'ratio':>8}{'req/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'peak MB':>9}{'errors':>8}")
    for case in cases:
        for name in proxies:
            rows = results[case, name]
            middle = [statistics.median(row[i] for row in rows) for i in range(6)]
            # The ratio is taken round by round, so that what disturbs a round disturbs both.
            base = results.get((case, "nginx"), rows)
            ratio = statistics.median(row[0] / other[0] for row, other in zip(rows, base))
            print(
                f"{case:12}{name:10}{middle[0]:12.1f}{ratio:8.2f}{middle[1]:10.0f}{middle[2]:9.2f}{middle[3]:9.2f}"
                f"{middle[4]:9.1f}{int(middle[5]):8}"
            )


if __name__ == "__main__":
    main()
