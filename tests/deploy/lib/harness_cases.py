"""What the other cases rely on: the lock, and commands that end."""

import subprocess
import sys
import tempfile
from pathlib import Path

from . import harness
from .harness import Failed, check, run, wait_for


def lock():
    """Who holds it is named, also where the file can't be written to; it is not awaited for ever."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lock"
        with harness.alone(path):
            pass
        code = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(); sys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            try:
                other.stdout.readline()
                with harness.alone(path, patience=0):
                    raise Failed("two hold it at once")
            except TimeoutError as error:
                check(f"process {other.pid}" in str(error), f"{error}")
            finally:
                other.kill()
        with harness.alone(path, patience=0):
            pass


def deadline():
    """A command that takes too long ends with all that it has started."""
    with tempfile.TemporaryDirectory() as folder:
        pid = Path(folder) / "pid"
        try:
            run("sh", "-c", f"echo begun; sleep 1000 & echo $! >{pid}; wait", timeout=1, may_fail=True)
            raise AssertionError("it went on")
        except Failed as error:
            check("not done within 1 s" in str(error) and "begun" in str(error), f"{error}")
        wait_for("the end of what it started", lambda: not alive(pid.read_text().strip()), 10)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
