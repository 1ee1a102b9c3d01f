"""Runs the faults and prints the table: see `tests/faults/run`."""

import argparse
import pathlib
import sys
import tempfile
import time

from lib.faults import FAULTS, Trial
from lib.machines import Failed, make_network
from lib.platform import Platform, one_counter

# Seconds. In the short form the machine may be as busy as it likes.
GOALS = {"equal": 2, "routable": 1}
SHORT_FORM = 3
HEAD = ["fault", "s", "requests", "failed", "removed", "s until equal", "s until routable", "slowest, s"]


def one(platform, what, fault, must_route, is_long):
    """Runs a fault; returns its row and what is wrong."""
    wrong, trial = [], Trial(platform, is_long)
    before = {it: (it.process.pid, platform.removals(it)) for it in platform.registries}
    began = time.monotonic()
    try:
        fault(trial)
    except Failed as why:
        wrong.append(str(why))
    ended = time.monotonic()
    requests = [it for it in platform.answered(ended) if began <= it.ended and it.begun <= ended]
    # Of registries that were there all the time: each counts all removals.
    removed = [platform.removals(it) - count for it, (pid, count) in before.items() if it.process.pid == pid]
    removed = int(max(removed, default=0))
    failures = [it for it in requests if it.status != 200]
    refused = [it for it in failures if it.kind == "visit" and it.status == 503 and "retry-after=1" in it.problem]
    if fault.__name__ == "etcd_away":
        failures = [it for it in failures if it not in refused]  # there is no count without etcd
    else:
        refused = []
    if failures:
        wrong.append(f"{len(failures)} requests failed, the first one: {failures[0]}")
    if removed:
        wrong.append(f"{removed} live members were removed")
    limit = 1 if is_long else SHORT_FORM
    for name, times in (("equal", trial.equal), ("routable", trial.routable if must_route else [])):
        if any(it > limit * GOALS[name] for it in times):
            wrong.append(f"{name} only after {max(times):.2f} s")
    worst = lambda times: f"{max(times):.2f}" if times else "–"
    slowest = max((it.took for it in requests if it.status == 200), default=0)
    failed = f"{len(failures)}" + (f" (and {len(refused):,} visits got 503)" if refused else "")
    times = [worst(trial.equal), worst(trial.routable), f"{slowest:.2f}"]
    return [what, f"{ended - began:.0f}", f"{len(requests):,}", failed, removed, *times], wrong


def print_row(cells):
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--bin", type=pathlib.Path, required=True, help="folder of the binaries")
    arguments.add_argument("--long", action="store_true", help="the whole table")
    arguments.add_argument("--rate", type=int, help="requests per second; default: 200, with --long 1,000")
    arguments.add_argument("--keep", type=pathlib.Path, help="folder for data and logs, to look at them afterwards")
    arguments.add_argument("-k", dest="only", default="", help="only faults with this in their name")
    options = arguments.parse_args()
    rate = options.rate or (1000 if options.long else 200)
    faults = [fault for fault in FAULTS if options.only in fault[0]]
    if not faults:
        arguments.error(f"no fault has {options.only!r} in its name")
    make_network()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        if options.keep:
            options.keep.mkdir(parents=True)
        folder = options.keep or pathlib.Path(folder)
        platform = Platform(folder.resolve(), options.bin.resolve(), rate)
        try:
            platform.start()
            print(f"{rate} requests/s, half of them visits and half of them entries, {options.bin.name} binaries\n")
            print_row(HEAD)
            print_row(["---"] * len(HEAD))
            for what, fault, must_route in faults:
                row, wrong = one(platform, what, fault, must_route, options.long)
                print_row(row)
                for why in wrong:
                    print(f"FAILED: {what}: {why}", flush=True)
                failed += bool(wrong)
            requests = platform.answered(time.monotonic())
            count, span = one_counter(requests)
            print(f"\n{len(requests):,} requests. {count:,} visits got {count:,} different numbers in the order of one "
                  f"counter, and {span - count} were left out.")
            platform.stop()
        except Failed as why:
            failed += 1
            print(f"FAILED: {why}")
        if failed and not options.keep:
            for log in sorted(folder.glob("*/log.txt")):
                print(f"-- {log.parent.name}\n" + "\n".join(log.read_text().splitlines()[-15:]))
    print(f"{failed} failed" if failed else "passed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
