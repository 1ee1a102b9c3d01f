#!/usr/bin/env python3
"""Instances killed, frozen and restarted at full load: counts the requests that a client saw fail. None may.

    cargo build --release -p hub-gateway -p hub-registry --bins
    tests/bench/gateway/faults.py [--bin target/release] [--seconds 15] [--connections 64]

Three instances (nginx) stand behind the gateway. While wrk sends GETs, one instance after the other is killed with
SIGKILL and started again half a second later; in a second run each is frozen with SIGSTOP for a while instead, with a
reply timeout of one second. Traffic goes to 127.0.0.1 alone, and everything started here is stopped here.
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=HERE.parents[2] / "target/release")
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--connections", type=int, default=64)
    args = parser.parse_args()
    failed = 0
    for fault in ("kill", "freeze"):
        with tempfile.TemporaryDirectory(prefix="faults-") as directory:
            run = Run(Path(directory))
            try:
                failed += round_of(run, fault, args)
            finally:
                for child in run.children:
                    child.send_signal(signal.SIGCONT)
                run.stop_all()
    sys.exit(1 if failed else 0)


def round_of(run, fault, args):
    registry, gateway, control = free_port(), free_port(), free_port()
    ports = [free_port() for _ in range(3)]
    instances = [instance(run, port) for port in ports]
    run.start(LOAD_CORE, [args.bin / "registry"], HUB_LISTEN=f"127.0.0.1:{registry}", HUB_TELEMETRY__LOG="warn")
    wait_for(f"http://127.0.0.1:{registry}/livez")
    for port in ports:
        info = json.dumps({"Name": "echo", "Addr": f"127.0.0.1:{port}", "RequiredServices": None})
        urllib.request.urlopen(f"http://127.0.0.1:{registry}/services", info.encode(), timeout=5).read()
    run.start(
        "0",
        [args.bin / "gateway"],
        HUB_LISTEN=f"127.0.0.1:{gateway}",
        HUB_CONTROL_LISTEN=f"127.0.0.1:{control}",
        HUB_REGISTRY__URL=f"http://127.0.0.1:{registry}",
        HUB_GATEWAY__EXPOSE="echo",
        HUB_GATEWAY__TIMEOUTS__FIRST_BYTE="1s",
        HUB_TELEMETRY__LOG="error",
    )
    wait_for(f"http://127.0.0.1:{control}/readyz")
    done, count = threading.Event(), [0]

    def harm():
        turn = 0
        while not done.wait(0.7):
            victim = instances[turn % 3]
            if fault == "kill":
                victim.kill()
                victim.wait()
                run.children.remove(victim)
                time.sleep(0.5)
                instances[turn % 3] = instance(run, ports[turn % 3])
            else:
                victim.send_signal(signal.SIGSTOP)
                time.sleep(1.5)
                victim.send_signal(signal.SIGCONT)
            count[0] += 1
            turn += 1

    harmer = threading.Thread(target=harm)
    harmer.start()
    command = ["wrk", "-t1", f"-c{args.connections}", f"-d{args.seconds}s", "--timeout", "20s", f"http://127.0.0.1:{gateway}/echo"]
    out = subprocess.run(["taskset", "-c", LOAD_CORE, *command], capture_output=True, text=True).stdout
    done.set()
    harmer.join()
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    bad = (int(bad.group(1)) if bad else 0) + (sum(map(int, errors.groups())) if errors else 0)
    metrics = urllib.request.urlopen(f"http://127.0.0.1:{control}/metrics", timeout=5).read().decode()
    retries = re.search(r'hub_gateway_retries\S*\{[^}]*service="echo"[^}]*\} (\d+)', metrics)
    print(f"{fault}: {count[0]} times, {requests} requests, {bad} failed, {retries.group(1) if retries else 0} retried", flush=True)
    return bad


if __name__ == "__main__":
    main()
