#!/usr/bin/env python3
"""Measures the registry: registrations, heartbeats, pushes, memory. Prints a Markdown table.

    tests/bench/registry.py [--seconds 10] [--only register,renew,heartbeats,dependents,peers]

The registry runs on core 0, the load on core 1. On a busy machine, prefer the CPU columns, which depend least on other
processes. Consul and etcd are measured, too, if they are installed. Linux only.
"""

import argparse
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")
# Heartbeats are measured separately: those of 10,000 instances would count as cost of the registrations.
NO_HEARTBEATS = {"HUB_REGISTRY__HEARTBEAT__INTERVAL": "10m"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A server on core 0."""

    def __init__(self, name, command, port, env=None):
        self.name, self.addr = name, f"127.0.0.1:{port}"
        self.log = tempfile.TemporaryFile()
        command = ["taskset", "-c", "0", *command]
        environment = {**os.environ, **(env or {})}
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.log.seek(0)
                    sys.exit(f"{name} does not start:\n{self.log.read().decode()}")
                time.sleep(0.1)

    def cpu(self):
        """CPU seconds so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self):
        """Resident bytes."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)


def registry(binary, **settings):
    port = free_port()
    env = {
        **settings,
        "HUB_LISTEN": f"127.0.0.1:{port}",
        "HUB_TELEMETRY__LOG": "error",
        "HUB_REGISTRY__LIMITS__REGISTRATIONS_PER_SECOND": "0",
    }
    return Process("registry", [str(binary)], port, env)


class Swarm:
    """Members on core 1. Prints "registered …" when it is ready, and starts the load after a line on stdin."""

    def __init__(self, binary, *arguments):
        command = ["taskset", "-c", "1", str(binary), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ready = self.process.stdout.readline().split()
        if not self.ready:
            sys.exit(f"{' '.join(command)} failed")

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def result(self):
        line = self.process.stdout.readline().split()
        if self.process.wait(60) != 0:
            sys.exit("the load failed")
        return line


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def registrations(swarm, server, instances, seconds, kind, what):
    with server as process:
        load = Swarm(swarm, "register", process.addr, instances, seconds, kind)
        before = process.cpu()
        load.go()
        done, elapsed, p99 = (float(cell) for cell in load.result())
        cpu = process.cpu() - before
        row(
            what,
            f"{instances:,}",
            f"{done / elapsed:,.0f}/s",
            f"{cpu / done * 1e6:.1f} µs",
            f"p99 {p99 / 1000:.1f} ms",
        )
        return cpu / done


def heartbeats(swarm, server, instances, seconds):
    with server as process:
        time.sleep(1)
        empty = process.memory()
        load = Swarm(swarm, "heartbeats", process.addr, instances, seconds)
        sent = int(load.ready[1])
        time.sleep(11)  # two rounds, so that all connections are open
        per_instance = (process.memory() - empty) / instances
        before, start = process.cpu(), time.monotonic()
        load.go()
        (answered,) = load.result()
        share = (process.cpu() - before) / (time.monotonic() - start)
        rate = int(answered) / seconds
        row(
            "heartbeats, every 5 s",
            f"{instances:,}",
            f"{rate:,.0f}/s",
            f"{share:.1%} of a core ({share / rate * 1e6:.1f} µs each)",
            f"{per_instance:.0f} bytes per instance, which sent {sent}",
        )


def dependents(swarm, server, mode, seconds, count=1000, instances=2000):
    with server as process:
        load = Swarm(swarm, "dependents", process.addr, count, instances, seconds, mode)
        before, start = process.cpu(), time.monotonic()
        load.go()
        p50, p99, last50, last, pushed = (int(cell) for cell in load.result())
        share = (process.cpu() - before) / (time.monotonic() - start)
        row(
            f"{count:,} dependents of {instances:,} instances, one change a second, `{mode}`",
            f"{count + instances:,}",
            f"pushed p50 {p50 / 1000:.0f} ms, p99 {p99 / 1000:.0f} ms",
            f"{share:.1%} of a core, {process.memory() / 1e6:.0f} MB",
            f"the last one p50 {last50 / 1000:.0f} ms, worst {last / 1000:.0f} ms; {pushed / 1e6:.1f} MB/s",
        )


def consul():
    if binary := shutil.which("consul"):
        port = free_port()
        ports = ["-http-port", str(port), "-dns-port=-1", "-grpc-port=-1", "-serf-lan-port", str(free_port())]
        ports += ["-serf-wan-port=-1", "-server-port", str(free_port())]
        return Process("consul", [binary, "agent", "-dev", "-log-level=err", *ports], port)


def etcd(folder):
    if binary := shutil.which("etcd"):
        port, peer = free_port(), free_port()
        urls = [f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"]
        command = [binary, "--data-dir", folder, "--unsafe-no-fsync", "--log-level=error"]
        command += ["--listen-client-urls", urls[0], "--advertise-client-urls", urls[0]]
        command += ["--listen-peer-urls", urls[1], "--initial-advertise-peer-urls", urls[1]]
        command += ["--initial-cluster", f"default={urls[1]}"]
        return Process("etcd", command, port)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=int, default=10)
    arguments.add_argument("--only", default="register,renew,heartbeats,dependents,peers")
    arguments.add_argument("--registry", type=pathlib.Path, help="binary to measure; default: build it")
    arguments.add_argument("--swarm", type=pathlib.Path, help="binary of the load; default: build it")
    options = arguments.parse_args()
    only = options.only.split(",")
    if not (options.registry and options.swarm):
        build = ["cargo", "build", "--profile", "dist", "-q", "-p", "hubspoke-registry", "--bin", "registry", "--example", "swarm"]
        subprocess.run(build, cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "dist"
    binary = options.registry or target / "registry"
    swarm = options.swarm or target / "examples" / "swarm"
    row("what", "instances", "rate", "CPU", "")
    row("---", "---", "---", "---", "---")
    for kind, what in [("hubspoke", "registrations"), ("renew", "renewals")]:
        if {"hubspoke": "register"}.get(kind, kind) in only:
            few, many = (
                registrations(swarm, registry(binary, **NO_HEARTBEATS), count, options.seconds, kind, what)
                for count in (1000, 10_000)
            )
            row(f"{what}: CPU at 10,000 to that at 1,000", "", "", f"{many / few:.2f}×", "")
    if "peers" in only:
        if process := consul():
            registrations(swarm, process, 1000, options.seconds, "consul", "Consul `catalog/register`")
        with tempfile.TemporaryDirectory() as folder:
            if process := etcd(folder):
                registrations(swarm, process, 1000, options.seconds, "etcd", "etcd put, without fsync")
    if "heartbeats" in only:
        heartbeats(swarm, registry(binary), 10_000, max(options.seconds, 15))
    if "dependents" in only:
        for mode in ["snapshot", "event"]:
            dependents(swarm, registry(binary), mode, max(options.seconds, 15))


if __name__ == "__main__":
    main()
