#!/usr/bin/env python3
"""Kills, freezes and restarts instances under full load, and counts failed requests. Exits with 1 if there are any.

    cargo build --profile dist -p hubspoke-gateway -p hubspoke-registry --bins
    tests/bench/gateway/faults.py [--bin target/dist] [--seconds 15] [--connections 64] [--only kill,deregister]

Three instances (nginx) run behind the gateway. While wrk sends requests, one instance after the other is

- kill: killed with SIGKILL and started again half a second later;
- freeze: stopped with SIGSTOP for 1.5 s, with a reply timeout of 1 s;
- deregister: restarted as a member restarts: deregistered, stopped gracefully (SIGQUIT), started and registered with a
  new id;
- drain: restarted as an operator restarts it: drained, killed with SIGKILL once the gateway no longer picks it, started,
  undrained.

kill and freeze use GET, the other two POST, which must not be retried. All traffic stays on 127.0.0.1, and every process
that is started is stopped at the end.
"""

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from bench import HERE, LOAD_CORE, Run, free_port, wait_for

INSTANCE = """
master_process off; daemon off; pid @DIR@/@PORT@.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
    access_log off; keepalive_requests 1000000; keepalive_timeout 75s;
    server {
        listen 127.0.0.1:@PORT@ backlog=4096 reuseport;
        location = /heart-beat { return 200 ""; }
        location = /echo { return 200 "Hello, world!"; }
    }
}
"""


def instance(run, port):
    path = run.dir / f"{port}.conf"
    path.write_text(INSTANCE.replace("@DIR@", str(run.dir)).replace("@PORT@", str(port)))
    child = run.start(LOAD_CORE, ["nginx", "-c", str(path)])
    wait_for(f"http://127.0.0.1:{port}/echo")
    return child


class Registry:
    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"
        self.starts = 0

    def call(self, method, path, info=None):
        body = json.dumps(info).encode() if info else None
        request = urllib.request.Request(self.url + path, body, method=method)
        urllib.request.urlopen(request, timeout=5).read()

    def register(self, port):
        """Registers a new start of the instance and returns the registration."""
        self.starts += 1
        info = {"Name": "echo", "Addr": f"127.0.0.1:{port}", "Id": f"echo-{self.starts}", "RequiredServices": None}
        self.call("POST", "/services", info)
        return info


class Metrics:
    """The gateway's metrics, read from its control port."""

    def __init__(self, port):
        self.port = port

    def sum(self, name, label=""):
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5).read().decode()
        lines = [line for line in text.splitlines() if re.match(rf"hub_gateway_{name}(_total)?{{", line) and label in line]
        return sum(int(line.rsplit(" ", 1)[1]) for line in lines)

    def causes(self):
        """How many requests the gateway answered itself, by cause."""
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5).read().decode()
        lines = re.findall(r'hub_gateway_failures(?:_total)?{.*cause="([^"]+)".*} (\d+)', text)
        return ", ".join(f"{count} {cause}" for cause, count in lines if count != "0")

    def wait_until_unpicked(self, id):
        """Waits until the gateway has not picked the instance for 0.1 s, which is thousands of requests."""
        end, before = time.monotonic() + 10, -1
        while time.monotonic() < end:
            now = self.sum("picks", f'instance="{id}"')
            if now == before:
                return
            before = now
            time.sleep(0.1)
        sys.exit(f"{id} is still picked")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=HERE.parents[2] / "target/dist")
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--only", default="kill,freeze,deregister,drain")
    args = parser.parse_args()
    failed = 0
    for fault in args.only.split(","):
        with tempfile.TemporaryDirectory(prefix="faults-") as directory:
            run = Run(Path(directory))
            try:
                failed += run_fault(run, fault, args)
            finally:
                for child in run.children:
                    child.send_signal(signal.SIGCONT)
                run.stop_all()
    sys.exit(1 if failed else 0)


def run_fault(run, fault, args):
    registry, gateway, control = free_port(), free_port(), free_port()
    ports = [free_port() for _ in range(3)]
    instances = [instance(run, port) for port in ports]
    run.start(LOAD_CORE, [args.bin / "registry"], HUB_LISTEN=f"127.0.0.1:{registry}", HUB_TELEMETRY__LOG="warn")
    wait_for(f"http://127.0.0.1:{registry}/livez")
    registry = Registry(registry)
    infos = [registry.register(port) for port in ports]
    run.start(
        "0",
        [args.bin / "gateway"],
        HUB_LISTEN=f"127.0.0.1:{gateway}",
        HUB_CONTROL_LISTEN=f"127.0.0.1:{control}",
        HUB_REGISTRY__URL=registry.url,
        HUB_GATEWAY__EXPOSE="echo",
        HUB_GATEWAY__TIMEOUTS__FIRST_BYTE="1s",
        HUB_TELEMETRY__LOG="error",
    )
    wait_for(f"http://127.0.0.1:{control}/readyz")
    metrics, done, completed, count = Metrics(control), threading.Event(), threading.Event(), [0]

    def restart(turn, stop):
        child = instances[turn]
        child.send_signal(stop)
        child.wait()
        run.children.remove(child)
        if fault == "kill":
            time.sleep(0.5)
        instances[turn] = instance(run, ports[turn])

    def inject(turn):
        if fault == "kill":
            restart(turn, signal.SIGKILL)
        elif fault == "freeze":
            instances[turn].send_signal(signal.SIGSTOP)
            time.sleep(1.5)
            instances[turn].send_signal(signal.SIGCONT)
        elif fault == "deregister":
            registry.call("DELETE", "/services", infos[turn])  # answered once the gateway has acknowledged it
            restart(turn, signal.SIGQUIT)
            infos[turn] = registry.register(ports[turn])
        else:
            path = f"/services/echo/127.0.0.1:{ports[turn]}/drain"
            registry.call("PUT", path)
            metrics.wait_until_unpicked(infos[turn]["Id"])
            restart(turn, signal.SIGKILL)
            registry.call("DELETE", path)

    def inject_all():
        while not done.wait(0.7):
            inject(count[0] % 3)
            count[0] += 1
        completed.set()

    injector = threading.Thread(target=inject_all)
    injector.start()
    method = "POST" if fault in ("deregister", "drain") else "GET"
    script = run.dir / "method.lua"
    script.write_text(f'wrk.method = "{method}"\n')
    command = ["wrk", "-t1", f"-c{args.connections}", f"-d{args.seconds}s", "--timeout", "20s", "-s", script]
    command += [f"http://127.0.0.1:{gateway}/echo"]
    out = subprocess.run(["taskset", "-c", LOAD_CORE, *command], capture_output=True, text=True).stdout
    done.set()
    injector.join()
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    bad = (int(bad.group(1)) if bad else 0) + (sum(map(int, errors.groups())) if errors else 0)
    retried = metrics.sum("retries", 'service="echo"')
    print(f"{fault}: {count[0]} times, {requests} requests ({method}), {bad} failed, {retried} retried", flush=True)
    if bad:
        print(f"    answered by the gateway itself: {metrics.causes() or 'none'}", flush=True)
    if not completed.is_set() or count[0] == 0:
        sys.exit(f"the faults were not injected as planned; log of all processes:\n{(run.dir / 'log.txt').read_text()}")
    return bad


if __name__ == "__main__":
    main()
