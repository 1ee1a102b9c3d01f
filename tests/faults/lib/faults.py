"""The faults. Each happens under load, and says when it begins and when it is over."""

import glob
import signal
import time

from .machines import ETCD, MEMBERS, Failed, eventually, get

LEASE = 5
SLOW = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync",
        "-e", "inject=fsync,fdatasync:delay_exit=100000"]
FAKETIME = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")


class Trial:
    """One fault, and what was measured meanwhile."""

    def __init__(self, platform, is_long):
        self.platform, self.is_long = platform, is_long
        self.equal, self.routable = [], []

    def route(self, registry, since):
        """A new instance registers; measures until both gateways have routed a request to it."""
        platform = self.platform
        info = platform.register(registry, "greeter", f"greeter-{since}")
        for gateway in platform.gateways:
            eventually(f"{gateway.name} knows the new one",
                       lambda gateway=gateway: get(f"{platform.url(gateway)}/greeter", timeout=6)[0] == 200)
        self.routable.append(time.monotonic() - since)
        platform.deregister(registry, info)

    def over(self):
        """The fault has ended; measures until all registries show the same, then waits until all is as before."""
        began = time.monotonic()
        eventually("all registries show the same", self.platform.equal)
        self.equal.append(time.monotonic() - began)
        settled = self.platform.settled
        epoch, live = eventually("everybody is passing, and known to three registries", settled, within=60)
        if (epoch, set(live)) != (self.platform.live[0], set(self.platform.live[1])):
            raise Failed(f"epoch and instances were {self.platform.live}, and are {(epoch, live)}")


def registries_killed(trial):
    registries = trial.platform.registries
    for n in range(20 * len(registries) if trial.is_long else len(registries)):
        dead, other = registries[n % 3], registries[(n + 1) % 3]
        dead.kill()
        trial.route(other, time.monotonic())
        time.sleep(LEASE + 1 if trial.is_long or n == 0 else 1)
        dead.start()
        trial.platform.ready(dead)
        trial.over()


def leader_killed(trial):
    for n in range(20 if trial.is_long else 2):
        leader = trial.platform.leader()
        leader.kill()
        trial.route(trial.platform.registries[n % 3], time.monotonic())
        trial.platform.leader()
        leader.start()
        trial.platform.etcd_healthy(leader)
        trial.over()


def etcd_away(trial):
    for machine in trial.platform.etcd:
        machine.kill()
    time.sleep(60 if trial.is_long else 10)
    for machine in trial.platform.etcd:
        machine.start()
    trial.platform.leader()
    trial.over()


def cut_off_from_etcd(trial):
    cut, other, _ = trial.platform.registries
    cut.cut(ETCD)
    trial.route(other, time.monotonic())
    time.sleep(2 * LEASE)
    cut.restore()
    trial.over()


def cut_off_from_members(trial):
    cut, other, _ = trial.platform.registries
    cut.cut(MEMBERS)
    trial.route(other, time.monotonic())
    time.sleep(3 * LEASE)
    cut.restore()
    trial.over()


def stopped_across_its_lease(trial):
    stopped, other, _ = trial.platform.registries
    stopped.signal(signal.SIGSTOP)
    trial.route(other, time.monotonic())
    time.sleep(LEASE + 3)
    stopped.signal(signal.SIGCONT)
    trial.over()


def compaction(trial):
    """A registry misses changes that are compacted meanwhile."""
    cut, other, third = trial.platform.registries
    cut.cut(ETCD)
    began = time.monotonic()
    for registry in (other, third, other):
        trial.route(registry, began)
    trial.routable = trial.routable[:1]
    revision = trial.platform.revision()
    trial.platform.etcdctl("compaction", str(revision), "--physical")
    cut.restore()
    trial.over()


def slow_fsync(trial):
    """Each fsync of each etcd takes 100 ms longer."""
    for prefix in (SLOW, []):
        for machine in trial.platform.etcd:
            machine.stop()
            machine.start(*prefix)
            trial.platform.etcd_healthy(machine)
        if prefix:
            trial.route(trial.platform.registries[0], time.monotonic())
            time.sleep(30 if trial.is_long else 8)
    trial.over()


def registries_replaced(trial):
    """By SIGTERM, one after the other, as in an upgrade."""
    for registry in trial.platform.registries:
        registry.stop()
        registry.start()
        trial.platform.ready(registry)
    trial.over()


def clock_steps(trial):
    """The wall clocks of registries jump: of all by an hour, then of one two hours back, then of all to the true time.
    The registries are replaced by ones below libfaketime first."""
    if not FAKETIME:
        raise Failed("libfaketime is not installed")
    for registry in trial.platform.registries:
        clock = registry.folder / "clock"
        clock.write_text("+0")
        registry.stop()
        registry.start(LD_PRELOAD=FAKETIME[0], FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_DONT_FAKE_MONOTONIC="1",
                       FAKETIME_CACHE_DURATION="1")
        trial.platform.ready(registry)
    registries = trial.platform.registries
    for step, which in (("+3600", registries), ("-3600", registries[:1]), ("+0", registries)):
        for registry in which:
            (registry.folder / "clock").write_text(step)
        eventually("the clocks have jumped", lambda: all(trial.platform.clock_is_off(it, int(step)) for it in which))
        trial.route(registries[1], time.monotonic())
        time.sleep(LEASE + 1)
    trial.over()


# What, the fault, whether a new registration must be routable within a second.
FAULTS = [
    ("kill -9 of each registry", registries_killed, True),
    ("kill -9 of etcd's leader", leader_killed, False),
    ("all of etcd away", etcd_away, False),
    ("a registry cut off from etcd", cut_off_from_etcd, False),
    ("a registry cut off from the members", cut_off_from_members, False),
    ("SIGSTOP of a registry across its lease", stopped_across_its_lease, False),
    ("compaction of what a registry has missed", compaction, False),
    ("fsync takes 100 ms longer", slow_fsync, False),
    ("each registry replaced (SIGTERM)", registries_replaced, False),
    ("clock steps of registries", clock_steps, False),
]
