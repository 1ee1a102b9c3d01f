"""Runs the cases. While working on the page: `--files` takes its scripts and styles from the checkout as they are
now, not from the registry's binary, so that nothing need be built."""

import argparse
import functools
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lib import catalog_cases, log_cases, operator_cases, serving_cases, use_cases  # noqa: E402
from lib.bench import Bench, launch  # noqa: E402
from lib.cases import run_all  # noqa: E402


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
    with launch() as browser:

        def on_a_bench(case):
            with Bench(browser, files) as bench:
                case(bench)
                bench.check_clean()

        return run_all((name[5:], functools.partial(on_a_bench, case)) for name, case in cases)


if __name__ == "__main__":
    sys.exit(main())
