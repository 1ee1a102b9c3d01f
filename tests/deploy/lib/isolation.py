"""What a container may do, read from the kernel rather than from the settings."""

import errno
import os
from pathlib import Path

from .harness import Skipped, check, say
from .platform import MEMBERS, containers, inspect

# Where the kernel lets a process write, though it is no file system of anybody's data.
DEVICES = ("/dev", "/proc", "/sys")
WRITABLE = {"registry": {"/tmp", "/data"}, "gateway": {"/tmp"}, "log": {"/tmp", "/data"}, "visit": {"/tmp", "/data"}}


def held():
    if os.geteuid() != 0:
        raise Skipped("reading other users' processes takes root")
    count = 0
    for service in ("registry", *MEMBERS):
        for container in containers(service):
            facts = inspect(container)
            status = process(facts["State"]["Pid"])
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
            writable(container, facts["State"]["Pid"], WRITABLE[service])
            count += 1
    say(f"{count} containers looked at")
    check(count == 6, f"{count} containers are no platform")


def process(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def writable(container, pid, expected):
    """Every mount of the container's, by trying to write there."""
    found = set()
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        place = line.split()[4]
        if any(place == device or place.startswith(f"{device}/") for device in DEVICES):
            continue
        if can_write(Path(f"/proc/{pid}/root{place}")):
            found.add(place)
    check(found == expected, f"{container} can write to {sorted(found)}, not {sorted(expected)}")


def can_write(place):
    """As root, to whom only a read-only file system says no."""
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
