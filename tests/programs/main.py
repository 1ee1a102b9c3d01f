"""Runs real programs with `hub run -- COMMAND`, as the table of docs/programs.md has it, and uses them through the
gateway: by path, whose prefix is stripped, and by host."""

import argparse
import functools
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lib import browser_cases, program_cases, socket_cases  # noqa: E402
from lib.bench import Bench, Skipped  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", metavar="TEXT", default="", help="only cases whose name contains TEXT")
    options = parser.parse_args()
    # When terminated, stop the browser and all processes, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as folder, Bench(folder) as bench:
        return run_all(
            (name[5:], functools.partial(case, bench))
            for module in (program_cases, socket_cases, browser_cases)
            for name, case in vars(module).items()
            if name.startswith("test_") and options.k in name
        )


def run_all(cases):
    passed = failed = 0
    for name, case in cases:
        began = time.monotonic()
        try:
            case()
        except Skipped as why:
            print(f"skip   {name}: {why}", flush=True)
        except Exception:  # one failing case must not stop the others
            failed += 1
            traceback.print_exc()
            print(f"FAILED {name}", flush=True)
        else:
            passed += 1
            print(f"ok     {name} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
