"""A platform on free ports, and programs below `hub run` on it."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HUB = ROOT / "target/debug/hub"
# Generous, because the machine may be busy.
DEADLINE = 30


def eventually(what, condition, pause=0.02):
    end = time.monotonic() + DEADLINE
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {DEADLINE} s: {what}")
        time.sleep(pause)
    return found


class Platform:
    """`hub up`. `folder` has the applications; `path` is where programs find interpreters and tools."""

    def __init__(self, folder, path):
        self.folder = folder
        self.path = path
        keys = ["LISTEN", "HUB__GATEWAY", "HUB__GATEWAY_CONTROL", "HUB__LOG", "HUB__VISIT"]
        env = {f"HUB_{key}": "127.0.0.1:0" for key in keys}
        env |= {"PATH": path, "HUB_TELEMETRY__LOG": "warn"}
        self.process = subprocess.Popen([HUB, "up"], cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
        addrs = {}
        for line in self.process.stdout:
            words = line.split()
            if len(words) > 1 and words[1].startswith("http://"):
                addrs.setdefault(words[0], words[1].removeprefix("http://"))
            if "ctrl-c" in line:
                break
        self.registry, self.gateway = addrs["registry"], addrs["gateway"]
        self.port = self.gateway.rsplit(":", 1)[1]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)

    def get(self, path, host=None):
        """The response of the gateway: status, headers and body."""
        connection = http.client.HTTPConnection(self.gateway, timeout=10)
        connection.request("GET", path, headers={"Host": f"{host}:{self.port}"} if host else {})
        response = connection.getresponse()
        answer = (response.status, response.headers, response.read().decode())
        connection.close()
        return answer

    def passes(self, path, text, host=None):
        """Waits until the gateway knows the service, and then for the answer."""

        def answered():
            status, _, body = self.get(path, host)
            return status == 200 and text in body

        eventually(f"{path} of {host or 'the gateway'} has {text!r}", answered)

    def redirects(self, path, to, host=None):
        status, headers, _ = self.get(path, host)
        location = (headers["Location"] or "").removeprefix(f"http://{host or '127.0.0.1'}:{self.port}")
        assert (status // 100, location) == (3, to), (status, headers["Location"])

    def catalog(self, name):
        connection = http.client.HTTPConnection(self.registry, timeout=10)
        connection.request("GET", "/services")
        return json.load(connection.getresponse())["Services"].get(name, [])

    def instances(self, name):
        return [one for one in self.catalog(name) if one["State"] != "removed"]

    def logs(self, name):
        command = [HUB, "logs", "--source", name, "--registry", self.registry]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def environment(self):
        return {"PATH": self.path, "HUB_REGISTRY__URL": f"http://{self.registry}", "PYTHONDONTWRITEBYTECODE": "1"}

    def start(self, name, command, folder, options=(), env=None):
        """`hub run`, whose processes have the name as their `MARK`."""
        return subprocess.Popen(
            [HUB, "run", "--name", name, *options, "--", *command],
            cwd=self.folder / folder,
            env=self.environment() | {"MARK": name} | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @contextlib.contextmanager
    def run(self, name, command, folder, options=(), env=None):
        """`hub run`, once it is registered. Afterwards, nothing is left."""
        process = self.start(name, command, folder, options, env)
        # Nobody waits for a program that fills the pipe.
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(process.stdout))
        reader.start()
        try:
            eventually(f"{name} is registered", lambda: process.poll() is not None or self.instances(name))
            assert process.poll() is None, "".join(lines)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE)
            reader.join(DEADLINE)
        assert process.returncode == 0, (process.returncode, "".join(lines))
        assert not self.instances(name)
        left = [pid for pid in Path("/proc").glob("[0-9]*") if f"MARK={name}" in environment_of(pid)]
        assert not left, left


def environment_of(folder):
    try:
        return (folder / "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
