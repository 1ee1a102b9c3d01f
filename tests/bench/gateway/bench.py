#!/usr/bin/env python3
"""Compares the cost of a request through the gateway, nginx, HAProxy and Caddy.

Each proxy has a core to itself; the load generator (wrk, h2load) and the instance (nginx) share the other. The figure to
compare is CPU time per request, read from /proc, and its ratio to nginx's in the same round. On two cores, requests per
second depend as much on the load generator as on the proxy.

    apt-get install nginx haproxy caddy wrk nghttp2-client
    cargo build --profile dist -p hubspoke-gateway -p hubspoke-registry --bins
    tests/bench/gateway/bench.py [--bin target/dist] [--seconds 5] [--rounds 3] [--only gateway,nginx] [--cases small-64]
        [--workers 2]

The cases that begin with tls- compare the gateway and nginx with TLS 1.3 towards clients, a P-256 certificate and the same
cipher suite: requests on connections that are kept, connections with a full and with a resumed handshake (one request
each), and the memory of an open connection.

`--only gateway,sampled,traced` shows the cost of tracing: of no request, of one in a hundred, of every request.

`--only nginx,before,gateway --before DIR` compares with another build, whose gateway and registry are in DIR.

`--workers N` gives each proxy N workers on N cores, and also runs each case with one worker for comparison. The load
generator and the instance get the remaining cores. On a machine with two cores none remain: they share the second core
with the proxy's second worker, so ignore requests per second. CPU time per request then shows whether the workers contend:
N workers that share nothing cost as much per request as one.

All traffic stays on 127.0.0.1, and every process that is started is stopped at the end.
"""

import argparse
import http.server
import json
import os
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")
LOAD_CORE = "1"  # for load generator and instance, unless there are more cores
PATHS = {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}

# The gateway with tracing off, of one request in a hundred, and of every request; and another build, with tracing off.
GATEWAYS = ("gateway", "sampled", "traced", "before")

# Name: tool, connections, path, further arguments of the tool.
CASES = {
    "small-64": ("wrk", 64, "/echo", []),
    "small-512": ("wrk", 512, "/echo", []),
    "16k-64": ("wrk", 64, "/echo/16k", []),
    "16k-512": ("wrk", 512, "/echo/16k", []),
    "post64k-64": ("wrk", 64, "/echo", ["-s", str(HERE / "post.lua")]),
    "h2c-64": ("h2load", 64, "/echo", ["-m", "4"]),
    "tls-small-64": ("wrk", 64, "/echo", []),
    "tls-16k-64": ("wrk", 64, "/echo/16k", []),
    "tls-h2-64": ("h2load", 64, "/echo", ["-m", "4"]),
    "tls-full": ("s_time", 1, "/echo", ["-new"]),
    "tls-resumed": ("s_time", 1, "/echo", ["-reuse"]),
}
WITH_TLS = ("nginx", "before", "gateway")
# Connections that are kept open to measure their memory.
OPEN = 900


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(url, patience=20):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            return urllib.request.urlopen(url, timeout=2).read()
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{url} does not answer")


class Run:
    """The processes that were started, to be stopped."""

    def __init__(self, directory):
        self.dir, self.children = directory, []

    def start(self, core, command, **env):
        log = open(self.dir / "log.txt", "a")
        # The settings are the caller's, whatever the shell has.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HUB_", "OTEL_"))}
        env = {**inherited, **PATHS, **env}
        # Elsewhere than in a checkout: its configuration files are for its own build.
        child = subprocess.Popen(["taskset", "-c", core, *command], stdout=log, stderr=log, env=env, cwd=self.dir)
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
    """The process and its descendants."""
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


def cores(workers):
    """The cores of the proxy, and those of load generator and instance: the remaining ones, or else the last."""
    count = os.cpu_count()
    if workers > count:
        sys.exit(f"--workers {workers}: this machine has {count} cores")
    return f"0-{workers - 1}", f"{min(workers, count - 1)}-{count - 1}" if workers > 1 else LOAD_CORE


def certificate(directory):
    """Makes a certificate of P-256 for the proxies. Returns its folder."""
    folder = directory / "tls"
    folder.mkdir()
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost"
    files = ["-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    (folder / "tls.key").chmod(0o600)
    return folder


def handshakes(port, path, more, seconds, core):
    """Connects again and again, with one request each. Returns connections, and those that are not of the kind wanted."""
    command = ["openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-www", path, "-tls1_3", "-time", str(seconds), *more]
    out = subprocess.run(["taskset", "-c", core, *command], capture_output=True, text=True, timeout=seconds + 60).stdout
    found = re.search(r"(\d+) connections in \d+ real seconds", out)
    if not found:
        sys.exit(f"unexpected output of openssl s_time:\n{out}")
    total, resumed = int(found.group(1)), sum(line.count("r") for line in out.splitlines() if set(line) <= set("*rtT"))
    return total, total - resumed if "-reuse" in more else resumed


def open_memory(pid, port):
    """The memory of a connection with TLS that has had a request and is kept open, in KiB."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def resident():
        return sum(
            int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{member}/status").read_text()).group(1)) for member in family(pid)
        )

    def connect():
        stream = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 20))
        stream.sendall(b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert stream.recv(4096).startswith(b"HTTP/1.1 200")
        return stream

    held = [connect() for _ in range(10)]
    before = resident()
    held += [connect() for _ in range(OPEN)]
    used = (resident() - before) / OPEN
    for stream in held:
        stream.close()
    return used


def load(case, port, h2_port, seconds, directory, core=LOAD_CORE):
    """Runs one load. Returns the number of good replies, the number of failures, and p50 and p99 in milliseconds."""
    tool, connections, path, more = CASES[case]
    if tool == "s_time":
        return *handshakes(port, path, more, seconds, core), 0, 0
    scheme = "https" if case.startswith("tls-") else "http"
    if tool == "wrk":
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *more, f"{scheme}://127.0.0.1:{port}{path}"]
    else:
        log = directory / "h2load.tsv"
        log.unlink(missing_ok=True)  # it appends
        command = ["h2load", "-t1", f"-c{connections}", f"-D{seconds}", f"--log-file={log}", *more]
        command.append(f"{scheme}://127.0.0.1:{h2_port}{path}")
    done = subprocess.run(["taskset", "-c", core, *command], capture_output=True, text=True, timeout=seconds + 60)
    out = done.stdout
    if tool == "wrk":
        requests = int(re.search(r"(\d+) requests in", out).group(1))
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
        bad = (int(bad.group(1)) if bad else 0) + (sum(map(int, errors.groups())) if errors else 0)
        p50, p99 = (milliseconds(re.search(rf"\s{p}%\s+(\S+)", out).group(1)) for p in (50, 99))
        return requests, bad, p50, p99
    total = re.search(r"requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed", out)
    if not total:
        sys.exit(f"unexpected output of h2load:\n{out}{done.stderr}")
    rows = (line.split("\t") for line in log.read_text().splitlines())
    took = sorted(int(row[2]) / 1000 for row in rows if row[1].startswith("2"))
    if len(took) < 100:
        sys.exit(f"unexpected output of h2load:\n{out}{done.stderr}")
    p50, p99 = (took[len(took) * p // 100] for p in (50, 99))
    return int(total.group(2)), int(total.group(3)), p50, p99


class Collector(http.server.BaseHTTPRequestHandler):
    """Accepts telemetry and discards it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def telemetry(name):
    """The environment of a gateway of that name: `sampled` traces one request in a hundred, `traced` every one."""
    if name in ("gateway", "before"):
        return {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    share = {"sampled": "0.01", "traced": "1"}[name]
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": share,
    }


def start_gateway(
    run, binaries, backend, core="0-1", workers=0, services=("echo",), under=(), instances={}, expose=None, **more
):
    """Starts a gateway, and a registry with one instance of each service: the backend, unless `instances` has another
    port and `Meta`. `under` runs the gateway under another program. `expose` is what is public, instead of `services`."""
    registry, control, port = free_port(), free_port(), free_port()
    quiet = {"HUB_TELEMETRY__LOG": "warn"}
    run.start(LOAD_CORE, [binaries / "registry"], HUB_LISTEN=f"127.0.0.1:{registry}", **quiet)
    wait_for(f"http://127.0.0.1:{registry}/livez")
    for name in services:
        own = instances.get(name, {"addr": backend, "meta": {}})
        info = {"Name": name, "Addr": f"127.0.0.1:{own['addr']}", "RequiredServices": None, "Meta": own["meta"]}
        body = json.dumps(info).encode()
        urllib.request.urlopen(f"http://127.0.0.1:{registry}/services", body, timeout=5).read()
    child = run.start(
        core,
        [*under, binaries / "gateway"],
        HUB_LISTEN=f"127.0.0.1:{port}",
        HUB_CONTROL_LISTEN=f"127.0.0.1:{control}",
        HUB_REGISTRY__URL=f"http://127.0.0.1:{registry}",
        HUB_GATEWAY__EXPOSE=expose or ",".join(services),
        HUB_GATEWAY__WORKERS=str(workers),
        **quiet,
        **more,
    )
    # Many services take a while to register, under callgrind a long one.
    patience = 20 + len(services) // 50
    wait_for(f"http://127.0.0.1:{control}/readyz", patience)
    wait_for(f"http://127.0.0.1:{port}/echo", patience)
    return child, port, port


def start_proxy(run, name, binaries, backend, workers, tls=None):
    """Starts a proxy. `tls` is the folder of a certificate: the ports that are returned are then for TLS."""
    core, port, h2_port, tls_port = cores(workers)[0], free_port(), free_port(), free_port()
    ports = {"PORT": port, "H2PORT": h2_port, "BACKEND": backend, "WORKERS": workers, "TLS": ""}
    if tls:
        ports["TLS"] = f"listen 127.0.0.1:{tls_port} ssl http2 backlog=4096; ssl_protocols TLSv1.2 TLSv1.3;"
        ports["TLS"] += f" ssl_certificate {tls}/tls.crt; ssl_certificate_key {tls}/tls.key;"
    if name == "nginx":
        child = run.start(core, ["nginx", "-c", run.config("nginx.conf", **ports)])
    elif name == "haproxy":
        child = run.start(core, ["haproxy", "-f", run.config("haproxy.cfg", **ports)])
    elif name == "caddy":
        command = ["caddy", "run", "--adapter", "caddyfile", "--config", run.config("Caddyfile", **ports)]
        child = run.start(core, command, GOMAXPROCS=str(workers), HOME=str(run.dir))
    else:
        more = telemetry(name)
        if tls:
            more |= {"HUB_GATEWAY__TLS__LISTEN": f"127.0.0.1:{tls_port}", "HUB_GATEWAY__TLS__CERTS": str(tls)}
        child, port, h2_port = start_gateway(run, binaries, backend, core, workers, **more)
        return (child, tls_port, tls_port) if tls else (child, port, h2_port)
    wait_for(f"http://127.0.0.1:{port}/echo")
    return (child, tls_port, tls_port) if tls else (child, port, h2_port)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=HERE.parents[2] / "target/dist")
    parser.add_argument("--before", type=Path, help="folder with the binaries of another build, for --only …,before")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="nginx,gateway,haproxy,caddy")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    proxies = [name for name in args.only.split(",") if name in GATEWAYS or shutil.which(name, path=PATHS["PATH"])]
    cases = args.cases.split(",")
    sizes = sorted({1, args.workers})
    _, load_core = cores(args.workers)
    results, open_sizes = {}, {}
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        directory = Path(directory)
        directory.chmod(0o755)  # nginx's worker runs as another user
        (directory / "16k").write_bytes(b"x" * 16384)
        folder = certificate(directory)
        run = Run(directory)
        try:
            backend = free_port()
            run.start(load_core, ["nginx", "-c", run.config("backend.conf", BACKEND=backend)])
            wait_for(f"http://127.0.0.1:{backend}/echo")
            for case in cases:
                for _ in range(args.rounds):
                    for name, workers in ((name, workers) for name in proxies for workers in sizes):
                        tls = folder if case.startswith("tls-") else None
                        if tls and name not in WITH_TLS:
                            continue
                        binaries = (args.before if name == "before" else args.bin).resolve()
                        child, port, h2_port = start_proxy(run, name, binaries, backend, workers, tls)
                        load(case, port, h2_port, 1, directory, load_core)
                        before = cpu_seconds(child.pid)
                        requests, bad, p50, p99 = load(case, port, h2_port, args.seconds, directory, load_core)
                        cpu = cpu_seconds(child.pid) - before
                        row = (cpu / requests * 1e6, requests / args.seconds, p50, p99, peak_mb(child.pid), bad)
                        results.setdefault((case, name, workers), []).append(row)
                        if case == "tls-small-64" and workers == 1:
                            open_sizes.setdefault(name, []).append(open_memory(child.pid, port))
                        for started in run.children[1:][::-1]:
                            run.stop(started)
        finally:
            run.stop_all()
    columns = ("CPU µs/req", "to nginx", "to before", "to one", "req/s", "p50 ms", "p99 ms", "peak MB", "errors")
    print(f"{'case':12}{'proxy':10}{'workers':>8}" + "".join(f"{column:>11}" for column in columns))
    for case, name, workers in ((case, name, workers) for case in cases for name in proxies for workers in sizes):
        rows = results.get((case, name, workers))
        if not rows:
            continue
        cpu, rate, p50, p99, peak, bad = (statistics.median(row[i] for row in rows) for i in range(6))

        def ratio(other):
            # By round, so that a disturbance affects both sides.
            return statistics.median(row[0] / base[0] for row, base in zip(rows, results.get(other, rows)))

        nginx, other, one = (ratio(key) for key in ((case, "nginx", workers), (case, "before", workers), (case, name, 1)))
        print(
            f"{case:12}{name:10}{workers:8}{cpu:11.1f}{nginx:11.2f}{other:11.2f}{one:11.2f}{rate:11.0f}{p50:11.2f}"
            f"{p99:11.2f}{peak:11.1f}{int(bad):11}"
        )
    for name, sizes_kib in open_sizes.items():
        print(f"an open connection with TLS: {name} {statistics.median(sizes_kib):.1f} KiB")
    if args.workers > 1 and os.cpu_count() <= args.workers:
        print("load generator and instance shared a core with the proxy: compare CPU per request, not requests per second")


if __name__ == "__main__":
    main()
