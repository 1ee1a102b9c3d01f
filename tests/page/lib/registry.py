"""A real registry process on a free port."""

import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, what, seconds=20.0):
    """Waits until the condition returns something true, and returns that."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def answers(url):
    try:
        urllib.request.urlopen(url, timeout=2).read()
        return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


class Process:
    """A child process."""

    def __init__(self, command, folder, **variables):
        # Without the caller's own settings.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HUB_", "OTEL_"))}
        self.log = open(pathlib.Path(folder) / "process.log", "ab")
        self.child = subprocess.Popen(command, cwd=folder, env=inherited | variables, stdout=self.log, stderr=self.log)

    def output(self):
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def send(self, number):
        self.child.send_signal(number)

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGCONT)
            self.child.terminate()
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        self.log.close()
        return self.child.returncode


class Registry(Process):
    def __init__(self, folder, token=None, port=None, **more):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        variables = {
            "HUB_LISTEN": f"127.0.0.1:{self.port}",
            "HUB_REGISTRY__HEARTBEAT__INTERVAL": "500ms",
            "HUB_REGISTRY__HEARTBEAT__GAP": "200ms",
            "HUB_REGISTRY__HEARTBEAT__TIMEOUT": "1s",
        }
        if token:
            variables["HUB_REGISTRY__TOKEN"] = token
        super().__init__([TARGET / "registry"], folder, **variables | more)
        try:
            wait_for(self._answers, "the registry answers")
        except BaseException:  # no caller has it yet
            self.stop()
            raise

    def _answers(self):
        """Whether it answers. Fails if it has exited, because its port was taken for example."""
        if self.child.poll() is not None:
            raise AssertionError(f"the registry exited {self.child.returncode}: {self.output()[-2000:]}")
        return answers(f"{self.url}/livez")
