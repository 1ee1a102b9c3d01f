"""The platform under test: a Compose project from the real files, on other ports."""

import functools
import json
import os
import re
from pathlib import Path

from . import harness
from .harness import Failed, check, run, wait_for
from .load import get

PROJECT, PROJECT_HA = "hubspoke-test", "hubspoke-test-ha"
REGISTRY, GATEWAY, VISIT = (f"http://127.0.0.1:{port}" for port in (31000, 31001, 31003))
FILES = ("docker-compose.yml", "tests/deploy/compose.yaml")
ROLLING = (*FILES, "tests/deploy/compose.rolling.yaml")
IPV6 = (*FILES, "tests/deploy/compose.ipv6.yaml")
HA = ("docker-compose.yml", "docker/compose.ha.yaml", "tests/deploy/compose.ha.yaml")
ENV = {"HUBSPOKE_VERSION": "test", "HUBSPOKE_REVISION": "revision-of-the-test"}
MEMBERS = ("gateway", "log", "visit")


def compose(*arguments, files=FILES, timeout=180, **options):
    chosen = [part for file in files for part in ("-f", file)]
    project = PROJECT_HA if files == HA else PROJECT
    return run("docker", "compose", "-p", project, *chosen, *arguments, timeout=timeout, env=ENV, **options)


@functools.cache
def token(*rights):
    """Returns the header with a new token: `token("--reader")`."""
    out = compose("run", "--rm", "-T", "hub", "token", "new", *rights)
    return {"Authorization": f"Bearer {re.search('hub_[0-9a-f]{48}', out)[0]}"}


def write_entry(text, **options):
    """Sends an entry through the gateway, as a member."""
    return get(f"{GATEWAY}/log", "POST", text, headers=token("--member", "tester"), **options)


def containers(service, every=False, project=PROJECT):
    """Names of a service's containers by number; with `every`, including stopped ones."""
    scope = ["--all"] if every else []
    out = run("docker", "ps", *scope, "--format", "{{.Names}}",
              "--filter", f"label=com.docker.compose.project={project}",
              "--filter", f"label=com.docker.compose.service={service}")
    return sorted(out.split(), key=lambda name: int(name.rsplit("-", 1)[1]) if name[-1].isdigit() else 0)


def inspect(container):
    return json.loads(run("docker", "inspect", container))[0]


def address(container):
    (network,) = inspect(container)["NetworkSettings"]["Networks"].values()
    return network["IPAddress"]


def process(container, program):
    """Returns the pid of a container's process. Raises Skipped if it does not run on this machine."""
    pid = inspect(container)["State"]["Pid"]
    try:
        seen = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        seen = b""
    if not seen.startswith(f"/usr/local/bin/{program}\0".encode()):
        raise harness.Skipped("the engine's processes can't be seen from here")
    return pid


def healthy(container):
    return inspect(container)["State"].get("Health", {}).get("Status") == "healthy"


def catalogue():
    """Instances by service name as listed by the registry, without removed ones."""
    status, _, body = get(f"{REGISTRY}/services")
    check(status == 200, f"GET /services: {status}")
    listed = json.loads(body)["Services"]
    return {name: [i for i in found if i["State"] != "removed"] for name, found in listed.items()}


def passing(service):
    return [instance for instance in catalogue().get(service, []) if instance["State"] == "passing"]


def wait_for_passing(service, count, seconds=60):
    """Waits until the registry lists exactly `count` instances of the service, all passing."""

    def settled():
        found = catalogue().get(service, [])
        return len(found) == count and all(i["State"] == "passing" for i in found) and found

    return wait_for(f"{count} passing instances of {service}", settled, seconds)


def wait_for_gateway(service, count, seconds=30):
    """Waits until the gateway sends requests to exactly `count` instances."""

    def seen():
        def ask():
            return write_entry(b"which instance is this?") if service == "log" else get(f"{GATEWAY}/{service}")

        ids = {ask()[1].get("Hub-Instance") for _ in range(count * 12)}
        return len(ids - {None}) == count

    wait_for(f"the gateway to use {count} instances of {service}", seen, seconds)


def up(*arguments, files=FILES):
    compose("up", "--detach", "--wait", "--wait-timeout", "120", "--remove-orphans", *arguments, files=files)


def scale_log(count):
    up("--no-recreate", "--scale", f"log={count}")
    wait_for_passing("log", count)


def log_volume():
    """Returns the log volume's folder on this machine."""
    folder = run("docker", "volume", "inspect", "--format", "{{.Mountpoint}}", f"{PROJECT}_log").strip()
    if not os.access(folder, os.R_OK):
        raise harness.Skipped("the engine's volumes can't be read from here")
    return Path(folder)


def entries():
    """Returns the entries of the log volume by file. Fails on a line that is not a JSON object."""
    found = {}
    for file in sorted(log_volume().rglob("services*.log")):
        lines = file.read_bytes().splitlines()
        for line in lines:
            if not isinstance(json.loads(line), dict):
                raise Failed(f"{file.name} contains {line[:100]!r}")
        found[str(file.relative_to(log_volume()))] = lines
    return found


def remove(files=FILES):
    compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5", files=files, may_fail=True)
    token.cache_clear()
