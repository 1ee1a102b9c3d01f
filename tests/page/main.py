"""Runs the cases. While working on the page: `--files` takes its scripts and styles from the checkout as they are
now, not from the registry's binary, so that nothing need be built."""

import argparse
import signal
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lib import catalog_cases, log_cases, operator_cases, serving_cases, use_cases  # noqa: E402
from lib.bench import Bench, launch  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", metavar="TEXT", default="", help="only cases whose name holds TEXT")
    parser.add_argument("--files", action="store_true", help="scripts and styles from services/registry/page")
    options = parser.parse_args()
    # A terminated run ends its browser and its processes like any other.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    files = Path(__file__).resolve().parents[2] / "services/registry/page" if options.files else None
    cases = [
        (name, case)
        for module in (serving_cases, catalog_cases, log_cases, operator_cases, use_cases)
        for name, case in vars(module).items()
        if name.startswith("test_") and options.k in name
    ]
    passed = failed = 0
    with launch() as browser:
        for name, case in cases:
            began = time.monotonic()
            try:
                with Bench(browser, files) as bench:
                    case(bench)
                    bench.check_clean()
                passed += 1
                print(f"ok     {name[5:]} ({time.monotonic() - began:.1f} s)", flush=True)
            except Exception:  # a case may fail in any way, and the others go on
                failed += 1
                traceback.print_exc()
                print(f"FAILED {name[5:]}", flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
