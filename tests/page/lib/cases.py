"""Runs cases and prints a line for each."""

import time
import traceback


def run_all(cases):
    """Runs (name, function) pairs and prints 'N passed, N failed'. Returns the exit code: 1 if any failed or none ran."""
    passed = failed = 0
    for name, case in cases:
        began = time.monotonic()
        try:
            case()
            passed += 1
            print(f"ok     {name} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception:  # one failing case must not stop the others
            failed += 1
            traceback.print_exc()
            print(f"FAILED {name}", flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0
