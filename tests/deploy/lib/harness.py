"""Runs and reports cases, runs commands, waits for conditions."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
WORK = ROOT / "target" / "deploy"
LOCK = Path(tempfile.gettempdir()) / "hubspoke-deploy.lock"


class Failed(Exception):
    """A case found something other than expected; the text says what."""


class Skipped(Exception):
    """The case can't run on this machine; the text says why."""


def check(condition, text):
    if not condition:
        raise Failed(text)


def say(text):
    print(f"    {text}", flush=True)


class Report:
    """Runs cases, prints a line for each, counts."""

    def __init__(self, only=""):
        self.only = only
        self.passed = self.failed = self.skipped = 0
        self.failures = []

    def case(self, name, function, *args, always=False):
        """Returns whether the case passed. Cases left out by `-k` are not counted."""
        if self.only and self.only not in name and not always:
            return False
        started = time.monotonic()
        try:
            function(*args)
        except Skipped as why:
            self.skipped += 1
            print(f"skip   {name}: {why}", flush=True)
            return False
        except (Failed, TimeoutError) as why:
            self._failed(name, str(why))
            return False
        except Exception as error:  # a bug in the test or a missing tool
            traceback.print_exc()
            self._failed(name, repr(error))
            return False
        self.passed += 1
        print(f"ok     {name} ({time.monotonic() - started:.1f} s)", flush=True)
        return True

    def _failed(self, name, why):
        self.failed += 1
        self.failures.append(name)
        print(f"FAILED {name}: {why}", flush=True)

    def close(self):
        for name in self.failures:
            print(f"failed: {name}")
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)
        # A run without any case is a failure.
        return 1 if self.failed or not self.passed else 0


@contextlib.contextmanager
def alone(path=LOCK, patience=900):
    """Allows one run at a time on this machine, by any user: all runs use the same ports and Compose project."""
    with contextlib.suppress(FileExistsError):
        path.touch(exist_ok=False)
        path.chmod(0o444)
    # Read access is enough for a lock, and another user's file allows no more.
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for {holder(file)}")
            wait_for(f"the end of {holder(file)}", lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB) is None, patience)
        yield


def holder(file):
    """Describes the process that holds the lock, if the kernel shows it."""
    inode = str(os.fstat(file.fileno()).st_ino)
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "FLOCK" and words[5].rsplit(":", 1)[1] == inode:
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{words[4]}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f"another run of these tests, process {words[4]}: {command.strip()}"
    return "another run of these tests"


def run(*command, timeout=120, may_fail=False, env=None, quiet=True):
    """Returns stdout and stderr of a command, interleaved. Raises Failed if it fails or times out."""
    command = [str(part) for part in command]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
        start_new_session=True,
    )
    ended = "exited {}"
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        out = end(process)
        may_fail, ended = False, f"timed out after {timeout} s"
    except BaseException:  # this run is ending, and the command, in its own session, gets no ctrl-c
        end(process)
        raise
    if process.returncode != 0 and not may_fail:
        tail = "\n".join((out or "").strip().splitlines()[-15:])
        raise Failed(f"{' '.join(command)} {ended.format(process.returncode)}\n{tail}")
    return out or ""


def end(process):
    """Kills a process and everything it started. Returns its output."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.communicate(timeout=10)[0]
    return ""


def wait_for(what, condition, seconds=60, every=0.25):
    """Returns the first true value of `condition`, or raises TimeoutError with its last value."""
    deadline = time.monotonic() + seconds
    while True:
        value = None
        try:
            value = condition()
            last = repr(value)
        except (OSError, ValueError, KeyError) as error:
            last = repr(error)
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s (last: {last})")
        time.sleep(every)


def tools(*requirements):
    """Returns the bin folder of a virtual environment with the given packages."""
    folder = WORK / "venv"
    stamp = folder / "requirements"
    wanted = "\n".join(requirements)
    if not stamp.is_file() or stamp.read_text() != wanted:
        run(sys.executable, "-m", "venv", folder)
        run(folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *requirements, timeout=300)
        stamp.write_text(wanted)
    return folder / "bin"
