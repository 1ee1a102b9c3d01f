"""Checks a container's privileges as the kernel reports them, not as the settings claim."""

import errno
import os
import stat
from pathlib import Path

from .harness import Skipped, check, say
from .platform import MEMBERS, containers, inspect, process

# Mounted read-write or holding devices, so file modes decide: nothing here may be writable for everybody.
KERNEL = ("/dev", "/proc", "/sys")
# Message queues: bounded by the kernel, and not files.
QUEUES = "/dev/mqueue"
WRITABLE = {"registry": {"/tmp", "/data"}, "gateway": {"/tmp"}, "log": {"/tmp", "/data"}, "visit": {"/tmp", "/data"}}


def unprivileged():
    if os.geteuid() != 0:
        raise Skipped("reading other users' processes takes root")
    count = 0
    for service in ("registry", *MEMBERS):
        for container in containers(service):
            facts = inspect(container)
            pid = process(container, service)
            status = status_of(pid)
            check(status["Uid"].split() == ["65532"] * 4, f"{container} runs as {status['Uid']}")
            check(status["Gid"].split() == ["65532"] * 4, f"{container} runs in group {status['Gid']}")
            for kind in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
                check(int(status[kind], 16) == 0, f"{container}: {kind} is {status[kind]}")
            check(status["NoNewPrivs"] == "1", f"{container} can gain privileges")
            check(status["Seccomp"] == "2", f"{container} has no seccomp filter")
            limits = facts["HostConfig"]
            check(limits["Memory"] > 0 and limits["PidsLimit"] > 0, f"{container} has no limits")
            check(limits["LogConfig"]["Config"].get("max-size"), f"{container}'s log grows without bound")
            check(limits["RestartPolicy"]["Name"] == "unless-stopped", f"{container} is not restarted")
            writable(container, pid, WRITABLE[service])
            count += 1
    say(f"{count} containers checked")
    check(count == 6, f"{count} containers, not 6")


def status_of(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def writable(container, pid, expected):
    """Tries to write to each of the container's mounts."""
    found = set()
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        place = line.split()[4]
        seen = Path(f"/proc/{pid}/root{place}")
        if any(place == kernel or place.startswith(f"{kernel}/") for kernel in KERNEL):
            open_to_all = seen.is_dir() and seen.stat().st_mode & stat.S_IWOTH
            if open_to_all and place != QUEUES and can_write(seen):
                found.add(place)
        elif can_write(seen):
            found.add(place)
    check(found == expected, f"{container} can write to {sorted(found)}, not {sorted(expected)}")


def can_write(place):
    """Runs as root, so only a read-only file system refuses."""
    try:
        if place.is_dir():
            probe = place / ".writable"
            probe.touch(exist_ok=False)
            probe.unlink()
        else:
            with open(place, "ab"):
                pass
    except OSError as error:
        if error.errno == errno.EROFS:
            return False
        raise
    return True
