#!/usr/bin/env python3
"""Measures what several machines cost: three registries on three etcd beside one with its catalogue in memory, and visits
with a shared count beside those with a count in a file. Prints a Markdown table.

    tests/bench/etcd.py [--seconds 10] [--only register,rest,dependents,visits] [--bin target/dist]

All servers run on core 0, the load on core 1, so compare figures of one run only. On a busy machine, prefer the CPU
columns. etcd syncs its disk, as it does by default. Needs etcd, taskset and, for visits, wrk. Linux only.
"""

import argparse
import contextlib
import os
import pathlib
import re
import subprocess
import tempfile
import time
import urllib.request

from registry import NO_HEARTBEATS, ROOT, Process, Swarm, free_port, registry, row

INSTANCES = 10_000


def metrics(addr):
    """Sums of the metrics of a process, by name."""
    sums = {}
    for line in urllib.request.urlopen(f"http://{addr}/metrics", timeout=10).read().decode().splitlines():
        if found := re.match(r"([a-z_]+)(?:\{.*\})? ([0-9.e+-]+)$", line):
            sums[found[1]] = sums.get(found[1], 0) + float(found[2])
    return sums


def servers(stack, count, start):
    return [stack.enter_context(start()) for _ in range(count)]


def etcd(stack, nodes=3):
    """A cluster; returns its processes."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    ports = [(free_port(), free_port()) for _ in range(nodes)]
    cluster = ",".join(f"n{n}=http://127.0.0.1:{peer}" for n, (_, peer) in enumerate(ports))
    all = []
    for n, (client, peer) in enumerate(ports):
        client_url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        command = ["etcd", "--name", f"n{n}", "--data-dir", f"{folder}/n{n}", "--log-level=error", "--logger=zap"]
        command += ["--listen-client-urls", client_url, "--advertise-client-urls", client_url]
        command += ["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url]
        command += ["--initial-cluster", cluster]
        all.append(stack.enter_context(Process("etcd", command, client)))
    deadline = time.monotonic() + 30
    while not metrics(all[0].addr).get("etcd_server_has_leader"):
        assert time.monotonic() < deadline, "etcd has no leader"
        time.sleep(0.1)
    return all


def engine(nodes):
    return {"HUB_ETCD__ENDPOINTS": ",".join(f"http://{node.addr}" for node in nodes)}


def on_etcd(stack, binary, nodes, **settings):
    """Three registries that share a catalogue."""
    all = servers(stack, 3, lambda: registry(binary, HUB_REGISTRY__STORE="etcd", **engine(nodes), **settings))
    deadline = time.monotonic() + 30
    while any(metrics(one.addr).get("hub_registry_registries", 0) < 3 for one in all):
        assert time.monotonic() < deadline, "the registries do not know each other"
        time.sleep(0.1)
    return all


def addrs(servers):
    return ",".join(server.addr for server in servers)


def cpu(servers):
    return sum(server.cpu() for server in servers)


def register(options, swarm, binary):
    rates = {}
    for what in ["etcd put, to three etcd", "registrations, three registries on etcd", "registrations, one in memory"]:
        with contextlib.ExitStack() as stack:
            nodes = etcd(stack) if "etcd" in what else []
            if "registries" in what:
                asked, kind = on_etcd(stack, binary, nodes, **NO_HEARTBEATS), "hubspoke"
            elif nodes:
                asked, kind = nodes, "etcd"
            else:
                asked, kind = [stack.enter_context(registry(binary, **NO_HEARTBEATS))], "hubspoke"
            load = Swarm(swarm, "register", addrs(asked), 1000, options.seconds, kind)
            before = cpu(asked), cpu(nodes)
            load.go()
            done, elapsed, p99 = (float(cell) for cell in load.result())
            own, of_etcd = (cpu(asked) - before[0]) / done, (cpu(nodes) - before[1]) / done
            parts = f"{own * 1e6:.0f} µs" + (f" and {of_etcd * 1e6:.0f} µs in etcd" if kind != "etcd" and nodes else "")
            rates[what] = done / elapsed
            row(what, "1,000", f"{done / elapsed:,.0f}/s", parts, f"p99 {p99 / 1000:.1f} ms")
    etcds, ours, _ = rates.values()
    row("registrations on etcd to etcd's own", "", f"{ours / etcds:.2f}×", "", "")


def at_rest(options, swarm, binary):
    """Heartbeats, and what reaches etcd while nothing changes."""
    shares = []
    for count in (1, 3):
        with contextlib.ExitStack() as stack:
            nodes = etcd(stack) if count > 1 else []
            asked = on_etcd(stack, binary, nodes) if nodes else [stack.enter_context(registry(binary))]
            time.sleep(1)
            empty = [server.memory() for server in asked]
            load = Swarm(swarm, "heartbeats", addrs(asked), INSTANCES, max(options.seconds, 30))
            time.sleep(15)  # more than two rounds, so that all connections are open and everybody is passing
            memory = [server.memory() - was for server, was in zip(asked, empty)]
            before, start = [server.cpu() for server in asked], time.monotonic()
            written = [metrics(node.addr) for node in nodes]
            load.go()
            (answered,) = load.result()
            elapsed = time.monotonic() - start
            each = [(server.cpu() - was) / elapsed for server, was in zip(asked, before)]
            shares.append(max(each))
            what = "three registries on etcd" if nodes else "one registry in memory"
            row(f"heartbeats every 5 s, {what}", f"{INSTANCES:,}", f"{int(answered) / elapsed:,.0f}/s",
                " + ".join(f"{share:.1%}" for share in each) + " of a core",
                " + ".join(f"{bytes / 1e6:.0f} MB" for bytes in memory) + " for the instances")
            if nodes:
                after = [metrics(node.addr) for node in nodes]
                rate = lambda name: max((now[name] - was[name]) / elapsed for now, was in zip(after, written))
                row("etcd meanwhile", "", f"{rate('etcd_debugging_mvcc_put_total'):.2f} puts/s",
                    "", f"{rate('etcd_server_proposals_committed_total'):.2f} commits/s")
    row("heartbeat CPU of the busiest of three to that of one", "", "", f"{shares[1] / shares[0]:.2f}×", "")


def dependents(options, swarm, binary):
    for count in (1, 3):
        with contextlib.ExitStack() as stack:
            nodes = etcd(stack) if count > 1 else []
            asked = on_etcd(stack, binary, nodes) if nodes else [stack.enter_context(registry(binary))]
            load = Swarm(swarm, "dependents", addrs(asked), 1000, 2000, max(options.seconds, 15), "snapshot")
            before, start = [server.cpu() for server in asked], time.monotonic()
            load.go()
            p50, p99, _, last, _ = (int(cell) for cell in load.result())
            elapsed = time.monotonic() - start
            each = [(server.cpu() - was) / elapsed for server, was in zip(asked, before)]
            what = "three registries on etcd" if nodes else "one registry in memory"
            row(f"a change a second, pushed to 1,000 dependents, {what}", "3,000",
                f"p50 {p50 / 1000:.0f} ms, p99 {p99 / 1000:.0f} ms",
                " + ".join(f"{share:.1%}" for share in each) + " of a core", f"the last one at worst {last / 1000:.0f} ms")


def visits(options, folder):
    """Visits asked for directly, each with an acknowledged entry."""
    def server(name, **settings):
        port = free_port()
        env = {"HUB_LISTEN": f"127.0.0.1:{port}", "HUB_TELEMETRY__LOG": "error", **settings}
        return Process(name, [str(folder / name)], port, env)

    for state, replicas in (("file", 1), ("etcd", 1), ("etcd", 2)):
        with contextlib.ExitStack() as stack:
            inner = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            nodes = etcd(stack) if state == "etcd" else []
            hub = stack.enter_context(registry(folder / "registry"))
            at = {"HUB_REGISTRY__URL": f"http://{hub.addr}"}
            log = stack.enter_context(server("log", HUB_LOG__FILE=str(inner / "log"), **at))
            own = {"HUB_VISIT__STATE": state, "HUB_VISIT__FILE": str(inner / "count"), **(engine(nodes) if nodes else {})}
            asked = servers(stack, replicas, lambda: server("visit", **own, **at))
            urls = [f"http://{it.addr}/visit" for it in asked]
            for url in urls:
                wait_for_visit(url)
            before = cpu(asked), cpu(nodes), cpu([log])
            wrk = ["taskset", "-c", "1", "wrk", "-t1", f"-c{64 // replicas}", f"-d{options.seconds}", "--latency"]
            loads = [subprocess.Popen([*wrk, url], stdout=subprocess.PIPE, text=True) for url in urls]
            outs = [load.communicate()[0] for load in loads]
            spent = cpu(asked) - before[0], cpu(nodes) - before[1], cpu([log]) - before[2]
            done = sum(int(re.search(r"(\d+) requests in", out)[1]) for out in outs)
            failed = sum(int(found[1]) for out in outs if (found := re.search(r"Non-2xx or 3xx responses: (\d+)", out)))
            visit, of_etcd, of_log = (f"{seconds / done * 1e6:.1f}" for seconds in spent)
            row(f"visits, `{state}`, {replicas} replica{'s'[: replicas - 1]}", "",
                f"{done / options.seconds:,.0f}/s", f"{visit} µs" + (f" and {of_etcd} µs in etcd" if nodes else "")
                + f" and {of_log} µs in log",
                "p99 " + ", ".join(re.search(r"99%\s+(\S+)", out)[1] for out in outs) + f", {failed} failed")


def wait_for_visit(url):
    deadline = time.monotonic() + 30
    while True:
        try:
            return urllib.request.urlopen(url, timeout=5).read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=int, default=10)
    arguments.add_argument("--only", default="register,rest,dependents,visits")
    arguments.add_argument("--bin", type=pathlib.Path, help="folder of the binaries; default: build them")
    options = arguments.parse_args()
    folder = options.bin
    if not folder:
        packages = ["-p", "hubspoke-registry", "-p", "hubspoke-visit", "-p", "hubspoke-log"]
        build = ["cargo", "build", "--profile", "dist", "-q", *packages, "--bins", "--example", "swarm"]
        subprocess.run(build, cwd=ROOT, check=True)
        folder = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "dist"
    swarm, binary = folder / "examples" / "swarm", folder / "registry"
    row("what", "instances", "rate", "CPU", "")
    row("---", "---", "---", "---", "---")
    for name, measure in [("register", register), ("rest", at_rest), ("dependents", dependents)]:
        if name in options.only.split(","):
            measure(options, swarm, binary)
    if "visits" in options.only.split(","):
        visits(options, folder)


if __name__ == "__main__":
    main()
