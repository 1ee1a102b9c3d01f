"""Three registries and two visits on three etcd members, in containers: docker/compose.ha.yaml."""

import json
import time

from . import platform
from .harness import check, run, say, wait_for
from .load import WORKERS, Load, get
from .platform import HA, PROJECT_HA, compose, containers

REGISTRIES = [f"http://127.0.0.1:{port}" for port in (32000, 32100, 32200)]
VIA_GATEWAY = "http://127.0.0.1:32001/visit"
# A lost registry is replaced within its lease of 5 s, a lost leader within some 2 s; the machine may be busy.
REPLACED = 60


def killed():
    """A registry, etcd's leader and a visit are killed under load, one after the other. No visit fails, all registries
    agree again, and the count goes on."""
    platform.remove()  # the plain one, which would only take memory
    run("docker/offline/prepare", "--etcd", timeout=600)
    try:
        began = time.monotonic()
        compose("up", "--detach", "--wait", "--wait-timeout", "170", files=HA, timeout=200)
        wait_for("all registries and members", settled, REPLACED)
        say(f"up and healthy in {time.monotonic() - began:.1f} s")
        check(get(VIA_GATEWAY)[0] == 200, "the first visit")
        for victim, missing in ((registry, 0), (leader, 0), (visit, WORKERS)):
            survive(victim, missing)
    finally:
        platform.remove(files=HA)


def survive(find, missing):
    container = find()
    with Load(VIA_GATEWAY) as load:
        wait_for("load", lambda: load.done >= 60, 30)
        run("docker", "kill", container)
        try:
            done = load.done
            wait_for("200 visits without it", lambda: load.done >= done + 200, 60)
        finally:
            run("docker", "start", container)
        began = time.monotonic()
        wait_for("all registries and members", settled, REPLACED)
        say(f"{container} is back after {time.monotonic() - began:.1f} s")
    load.none_failed()
    # The visits that a killed replica was working on are repeated by the other one, with other numbers.
    load.no_number_is_missing(tolerance=missing)


def settled():
    """Whether each registry knows the three registries and all instances, and etcd answers it."""
    for url in REGISTRIES:
        status, _, body = get(f"{url}/services", timeout=3)
        if status != 200:
            return False
        view = json.loads(body)
        shared = view["Registries"]
        counts = {name: sum(one["State"] == "passing" for one in found) for name, found in view["Services"].items()}
        wanted = {"gateway": 1, "log": 3, "visit": 2}
        if counts != wanted or len(shared["Registries"]) != len(REGISTRIES) or not shared["EtcdUp"]:
            return False
    return True


def registry():
    return containers("registry-2", project=PROJECT_HA)[0]


def visit():
    return containers("visit", project=PROJECT_HA)[0]


def leader():
    """The container of the etcd member that leads."""
    for number in (1, 2, 3):
        (container,) = containers(f"etcd-{number}", project=PROJECT_HA)
        _, _, body = get(f"http://{platform.address(container)}:2379/v3/maintenance/status", "POST", "{}")
        status = json.loads(body)
        if status["leader"] == status["header"]["member_id"]:
            return container
    raise TimeoutError("no member of etcd leads")
