#!/usr/bin/env python3
"""Counts the instructions that the gateway takes per request, which no other load on the machine changes.

Callgrind runs the gateway's instructions one by one, so a difference of a percent between two builds shows in one run, and
the functions that it comes from too. Time in the kernel is not counted: `strace -c` shows the system calls.

    apt-get install nginx nghttp2-client valgrind
    export CARGO_PROFILE_BENCH_DEBUG=line-tables-only
    cargo build --profile bench -p hubspoke-gateway -p hubspoke-registry --bins
    tests/bench/gateway/instructions.py --bin target/bench [--before DIR] [--cases small,hosts3,hosts10000] [--requests 10000] [--top 30]

`--before DIR` compares with another build, whose gateway and registry are in DIR. `--keep DIR` keeps callgrind's output.
All traffic stays on 127.0.0.1, and every process that is started is stopped at the end.
"""

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

from bench import HERE, Run, free_port, start_gateway, wait_for

# Arguments of h2load.
CASES = {
    "small": ["--h1", "-c", "64"],
    "post64k": ["--h1", "-c", "16", "-d", "@DIR@/64k"],
    "h2c": ["-c", "16", "-m", "4"],
    "hosts3": ["--h1", "-c", "64"],
    "hosts10000": ["--h1", "-c", "64"],
}
# Cases in which so many services have a host each, and requests are for one of them.
HOSTS = {"hosts3": 3, "hosts10000": 10_000}


def send(case, port, requests, directory):
    args = [arg.replace("@DIR@", str(directory)) for arg in CASES[case]]
    if case in HOSTS:
        # The backend has one path only.
        url = [f"--connect-to=127.0.0.1:{port}", f"http://s1.test:{port}/echo"]
    else:
        url = [f"http://127.0.0.1:{port}/echo"]
    command = ["h2load", "-t1", "-n", str(requests), *args, *url]
    out = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True).stdout
    assert f"{requests} succeeded" in out and "status codes: %d 2xx" % requests in out, out


def count(run, case, binaries, backend, requests, output):
    """Returns the instructions per request, in all and by function."""
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", "--compress-strings=no"]
    services = ["echo", *(f"s{n}" for n in range(HOSTS.get(case, 0)))]
    instances = {name: {"addr": backend, "meta": {"route.hosts": f"{name}.test"}} for name in services[1:]}
    more = {"expose": "*"} if instances else {}
    child, port, _ = start_gateway(
        run, binaries, backend, "0-1", 1, services, under=valgrind, instances=instances, **more
    )
    send(case, port, requests // 5, run.dir)
    control = ["callgrind_control", str(child.pid)]
    subprocess.run([*control, "-z"], check=True, capture_output=True, timeout=60)
    send(case, port, requests, run.dir)
    subprocess.run([*control, "-d", "measured"], check=True, capture_output=True, timeout=60)
    for started in run.children[1:][::-1]:
        run.stop(started)
    dump = f"{output}.1"
    text = subprocess.run(
        ["callgrind_annotate", "--inclusive=no", "--threshold=100", "--auto=no", dump], capture_output=True, text=True, check=True
    ).stdout
    total, functions = 0, {}
    for line in text.splitlines():
        found = re.match(r"\s*([\d,]+) \([\d. ]+%\)\s+(.*)", line)
        if not found:
            continue
        number = int(found.group(1).replace(",", "")) / requests
        if found.group(2) == "PROGRAM TOTALS":
            total = number
        else:
            name = re.sub(r"::h[0-9a-f]{16}|\[/.*\]$|\.llvm\.\d+", "", found.group(2)).strip()
            name = re.sub(r"^\S*/(registry/src/[^/]*/|rustc/[0-9a-f]*/|services/)", "", name)
            functions[name] = functions.get(name, 0) + number
    return total, functions


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=HERE.parents[2] / "target/bench")
    parser.add_argument("--before", type=Path, help="folder with the binaries of another build")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--top", type=int, default=0, help="show the functions that differ most, or cost most")
    parser.add_argument("--keep", type=Path, help="folder for callgrind's output")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        directory = Path(directory)
        directory.chmod(0o755)  # nginx's worker runs as another user
        (directory / "16k").write_bytes(b"x" * 16384)
        (directory / "64k").write_bytes(b"x" * 65536)
        run = Run(directory)
        try:
            backend = free_port()
            run.start("0-1", ["nginx", "-c", run.config("backend.conf", BACKEND=backend)])
            wait_for(f"http://127.0.0.1:{backend}/echo")
            for case in args.cases.split(","):
                results = []
                for name in filter(None, (args.before, args.bin)):
                    output = (args.keep or directory) / f"{case}-{len(results)}.callgrind"
                    results.append(count(run, case, name.resolve(), backend, args.requests, output))
                (first, before), (last, after) = results[0], results[-1]
                print(f"{case:10}{last:10.0f} instructions per request", end="")
                print(f", {first:.0f} before: {last / first:.3f}" if args.before else "")
                changes = {name: after.get(name, 0) - (before.get(name, 0) if args.before else 0) for name in {*before, *after}}
                for name, change in sorted(changes.items(), key=lambda item: -abs(item[1]))[: args.top]:
                    print(f"  {change:+8.1f} {after.get(name, 0):8.1f}  {name[:200]}")
        finally:
            run.stop_all()


if __name__ == "__main__":
    main()
