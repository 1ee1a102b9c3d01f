"""Tests of the harness: the lock, and the timeout of commands."""

import subprocess
import sys
import tempfile
from pathlib import Path

from . import harness
from .harness import Failed, check, run, wait_for


def lock():
    """The holder is named even if the file is read-only, and the wait has a deadline."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lock"
        with harness.alone(path):
            pass
        code = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(); sys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            try:
                other.stdout.readline()
                with harness.alone(path, patience=0):
                    raise Failed("two runs hold the lock")
            except TimeoutError as error:
                check(f"process {other.pid}" in str(error), f"{error}")
            finally:
                other.kill()
        with harness.alone(path, patience=0):
            pass


def deadline():
    """A command that times out is killed with everything it has started."""
    with tempfile.TemporaryDirectory() as folder:
        pid = Path(folder) / "pid"
        try:
            run("sh", "-c", f"echo begun; sleep 1000 & echo $! >{pid}; wait", timeout=1, may_fail=True)
            raise AssertionError("it was not killed")
        except Failed as error:
            check("timed out after 1 s" in str(error) and "begun" in str(error), f"{error}")
        wait_for("the child process to end", lambda: not alive(pid.read_text().strip()), 10)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
