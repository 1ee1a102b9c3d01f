"""Machines: network namespaces on one bridge, and the processes that run there. Made inside namespaces of the suite's
own, so that everything ends with it."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

# The one who drives the suite, and the load; and the same one as a member.
DRIVER, MEMBER = "10.77.0.1", "10.77.3.1"
ETCD, REGISTRIES, MEMBERS = "10.77.1.0/24", "10.77.2.0/24", "10.77.3.0/24"


class Failed(Exception):
    """Something is other than expected; the text says what."""


def sh(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    return done.stdout


def get(url, method="GET", body=None, timeout=2):
    """Returns (status, headers, body). Raises OSError if there is no response."""
    request = urllib.request.Request(url, body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def eventually(what, condition, within=30, pause=0.02):
    """Waits until the condition returns something; returns it."""
    end = time.monotonic() + within
    while True:
        try:
            if found := condition():
                return found
        except OSError:
            pass
        if time.monotonic() > end:
            raise Failed(f"not within {within} s: {what}")
        time.sleep(pause)


def make_network():
    sh("ip", "link", "set", "lo", "up")
    sh("mount", "-t", "tmpfs", "none", "/run")
    sh("ip", "link", "add", "hub", "type", "bridge")
    sh("ip", "addr", "add", f"{DRIVER}/16", "dev", "hub")
    sh("ip", "addr", "add", f"{MEMBER}/16", "dev", "hub")
    sh("ip", "link", "set", "hub", "up")


class Machine:
    """A machine with one program, which can be cut off from others."""

    def __init__(self, name, ip, folder):
        self.name, self.ip, self.folder = name, ip, folder / name
        self.process, self.command, self.env = None, None, {}
        self.folder.mkdir()
        sh("ip", "netns", "add", name)
        sh("ip", "link", "add", f"v-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        sh("ip", "link", "set", f"v-{name}", "master", "hub", "up")
        self.inside("ip", "addr", "add", f"{ip}/16", "dev", "eth0")
        self.inside("ip", "link", "set", "eth0", "up")
        self.inside("ip", "link", "set", "lo", "up")

    def inside(self, *command):
        return sh("nsenter", f"--net=/run/netns/{self.name}", *command)

    def start(self, *prefix, **env):
        """Starts the program, or starts it again. `prefix` is a command that runs it."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HUB_", "OTEL_"))}
        command = ["nsenter", f"--net=/run/netns/{self.name}", *prefix, *map(str, self.command)]
        with open(self.folder / "log.txt", "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
                                            env={**inherited, **self.env, **env})

    def signal(self, number):
        """To the program and to whatever runs it."""
        os.killpg(self.process.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} did not end within 20 s of SIGTERM") from None

    def cut(self, network):
        """Drops every packet to and from a network."""
        for chain, side in (("INPUT", "-s"), ("OUTPUT", "-d")):
            self.inside("iptables", "-w", "-A", chain, side, network, "-j", "DROP")

    def restore(self):
        self.inside("iptables", "-w", "-F")
