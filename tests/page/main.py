"""Runs the tests of the web page. With `--files`, scripts and styles come from the checkout instead of the registry's
binary, so that changes to them need no build."""

import argparse
import functools
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lib import catalog_cases, log_cases, operator_cases, registries_cases, serving_cases, use_cases, window_cases  # noqa: E402
from lib.bench import Bench, launch  # noqa: E402
from lib.cases import run_all  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", metavar="TEXT", default="", help="only cases whose name contains TEXT")
    parser.add_argument("--files", action="store_true", help="use scripts and styles from services/registry/page")
    options = parser.parse_args()
    # When terminated, stop the browser and all processes, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    files = Path(__file__).resolve().parents[2] / "services/registry/page" if options.files else None
    cases = [
        (name, case)
        for module in (serving_cases, catalog_cases, log_cases, operator_cases, registries_cases, use_cases, window_cases)
        for name, case in vars(module).items()
        if name.startswith("test_") and options.k in name
    ]
    with launch() as browser:

        def run(case):
            with Bench(browser, files) as bench:
                case(bench)
                bench.check_clean()

        return run_all((name[5:], functools.partial(run, case)) for name, case in cases)


if __name__ == "__main__":
    sys.exit(main())
