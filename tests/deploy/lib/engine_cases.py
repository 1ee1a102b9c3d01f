"""The platform in containers: started, scaled, broken, re-created and stopped, under load, with failures counted."""

import collections
import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import time
from pathlib import Path

from . import ha_cases, harness, images, isolation, platform
from .harness import ROOT, Skipped, check, run, say, wait_for
from .load import Load, get
from .platform import GATEWAY, IPV6, MEMBERS, ROLLING, VISIT, compose, containers

VIA_GATEWAY, DIRECT = f"{GATEWAY}/visit", f"{VISIT}/visit"
# Heartbeats every 5 s, 3 attempts of 1 s, 1 s apart, and room for a busy machine.
DETECTED = 45
# A member that was cut off comes back with its next renewal (15 s) at the latest.
RECOVERED = 60


def run_all(report, keep):
    with contextlib.ExitStack() as stack:
        if report.case("engine: no other run", lambda: stack.enter_context(harness.alone()), always=True):
            run_alone(report, keep)


def run_alone(report, keep):
    if not report.case("engine: answers", engine, always=True):
        return
    try:
        built = report.case("engine: base images, plugins, build", images.build, always=True)
        if not built:
            return
        for name, case in (("image sizes", images.small), ("images are described", images.described),
                           ("images are bare", images.bare), ("images' settings are accepted", images.settings)):
            report.case(f"engine: {name}", case)
        platform.remove()
        if report.case("engine: up, all healthy", come_up, always=True):
            for name, case in CASES:
                report.case(f"engine: {name}", case)
    finally:
        if keep:
            say(f"left running: docker compose -p {platform.PROJECT} …")
        else:
            platform.remove()


def engine():
    if "Server" not in run("docker", "version", may_fail=True):
        raise Skipped("no Docker Engine answers on this machine")


def come_up():
    started = time.monotonic()
    platform.up()
    took = time.monotonic() - started
    for service, count in (("registry", 1), ("gateway", 1), ("log", 3), ("visit", 1)):
        found = containers(service)
        check(len(found) == count, f"{service}: {found}")
        for container in found:
            check(platform.healthy(container), f"{container} is not healthy")
    status, _, body = get(VIA_GATEWAY)
    check(status == 200, f"the first visit: {status} {body!r}")
    check(get(DIRECT)[0] == 200, "the first direct visit")
    say(f"up and healthy in {took:.1f} s")


def own_addresses():
    listed = {i["Addr"] for i in platform.wait_for_passing("log", 3)}
    real = {f"{platform.address(container)}:20002" for container in containers("log")}
    check(listed == real, f"the registry lists {listed}, the containers have {real}")
    for service in MEMBERS:
        for instance in platform.passing(service):
            check(not instance["Addr"].startswith(("127.", "0.")), f"{service} at {instance['Addr']}")


def files_apart():
    before = platform.entries()
    for _ in range(60):
        platform.write_entry(b"whose file is this?")
    after = platform.entries()
    grown = {name for name in after if len(after[name]) > len(before.get(name, []))}
    check(len(grown) == 3, f"60 entries went to {sorted(grown)}")


def balance(count):
    """Sends 2,000 entries through the gateway. One correct run in a million exceeds the chi-squared limit."""
    limit = {3: 27.6, 5: 33.4}.get(count)
    platform.wait_for_gateway("log", count)
    total, callers = 2000, 5
    with concurrent.futures.ThreadPoolExecutor(callers) as pool:
        served = sum(pool.map(served_by, [total // callers] * callers), collections.Counter())
    expected = total / count
    chi_squared = sum((seen - expected) ** 2 / expected for seen in served.values())
    say(", ".join(f"{name}: {seen}" for name, seen in sorted(served.items())) + f"; chi-squared {chi_squared:.1f}")
    check(len(served) == count, f"{len(served)} instances served, not {count}")
    check(limit is None or chi_squared < limit, f"not uniform: chi-squared {chi_squared:.1f} is over {limit}")


def served_by(total):
    """Sends `total` entries over one connection. Returns how many each instance served."""
    served = collections.Counter()
    connection = http.client.HTTPConnection("127.0.0.1", 31001, timeout=10)
    for number in range(total):
        connection.request("POST", "/log", f"entry {number}", platform.token("--member", "tester"))
        reply = connection.getresponse()
        body = reply.read()
        check(reply.status == 200, f"entry {number}: {reply.status} {body!r}")
        served[reply.headers["Hub-Instance"]] += 1
    connection.close()
    return served


def scale():
    with Load(VIA_GATEWAY, DIRECT) as load:
        ids = {container: platform.inspect(container)["Id"] for container in containers("log")}
        compose("up", "--detach", "--scale", "log=5")  # as people type it; running containers stay
        platform.wait_for_passing("log", 5)
        again = [container for container in ids if platform.inspect(container)["Id"] != ids[container]]
        check(not again, f"{again} were re-created")
        for count in (5, 1, 3):
            no_errors_logged()  # a removed container's log is lost
            platform.scale_log(count)
            time.sleep(2)  # two seconds of load at this size; not a wait for a condition
            say(f"{count} log replicas")
    load.none_failed()


def balance_of_5_and_1():
    platform.scale_log(5)
    balance(5)
    platform.scale_log(1)
    balance(1)
    platform.scale_log(3)
    balance(3)


def fault(number, inject, repair, removed):
    """One log replica fails under load, and no visit does. The failure is detected; after repair the replica is back.

    Each fault hits another replica: one that fails three times within a minute stays suspect for a while."""
    victim = containers("log")[number]
    with Load(VIA_GATEWAY, DIRECT) as load:
        time.sleep(1)  # load before the fault
        began = time.monotonic()
        inject(victim)
        try:
            if removed:
                platform.wait_for_passing("log", 2, DETECTED)
                say(f"detected after {time.monotonic() - began:.1f} s")
        finally:
            began = time.monotonic()
            repair(victim)
        platform.wait_for_passing("log", 3, RECOVERED)
        say(f"back after {time.monotonic() - began:.1f} s")
        wait_for("the replica's health", lambda: platform.healthy(victim), 30)
    load.none_failed()
    platform.wait_for_gateway("log", 3)


def killed():
    fault(1, lambda c: run("docker", "kill", c), lambda c: run("docker", "start", c), removed=True)


def crashed():
    """kill -9 of the process; the engine restarts it."""
    if os.geteuid() != 0:
        raise Skipped("killing another user's process needs root")
    fault(0, lambda c: run("kill", "-9", platform.process(c, "log")), lambda c: None, removed=False)


def paused():
    fault(2, lambda c: run("docker", "pause", c), lambda c: run("docker", "unpause", c), removed=True)


def cut_off():
    network = f"{platform.PROJECT}_hub"
    fault(
        0,
        lambda c: run("docker", "network", "disconnect", network, c),
        lambda c: run("docker", "network", "connect", network, c),
        removed=True,
    )


def registry_recreated():
    """The registry's container is re-created under load. No visit fails, and all members come back by renewal."""
    before = {service: {i["Id"] for i in platform.passing(service)} for service in MEMBERS}
    with Load(VIA_GATEWAY, DIRECT) as load:
        compose("up", "--detach", "--no-deps", "--force-recreate", "registry")
        began = time.monotonic()
        wait_for("all members in the new catalogue", lambda: all(
            {i["Id"] for i in platform.passing(service)} == before[service] for service in MEMBERS), RECOVERED)
        say(f"the whole catalogue after {time.monotonic() - began:.1f} s")
        time.sleep(3)
    load.none_failed()


def visit_recreated():
    """The only visit replica is replaced under load. Requests wait for the new one, and none fails."""
    (before,) = platform.passing("visit")
    with Load(VIA_GATEWAY) as load:
        wait_for("load", lambda: load.done >= 50, 30)
        compose("up", "--detach", "--no-deps", "--force-recreate", "visit")
        wait_for("the new one", lambda: [i["Id"] for i in platform.passing("visit")] not in ([], [before["Id"]]), RECOVERED)
        done = load.done
        wait_for("100 visits more", lambda: load.done >= done + 100, 30)
    load.none_failed()
    load.no_number_is_missing()


def registry_killed():
    """The registry is killed, stays away for 300 visits, and comes back with the catalogue from its snapshot file."""
    before = {service: {i["Id"] for i in platform.passing(service)} for service in MEMBERS}
    (registry,) = containers("registry")
    with Load(VIA_GATEWAY, DIRECT) as load:
        wait_for("load", lambda: load.done >= 50, 30)
        run("docker", "kill", "--signal", "KILL", registry)
        try:
            without = load.done
            wait_for("300 visits without a registry", lambda: load.done >= without + 300, 60)
        finally:
            run("docker", "start", registry)
        began = time.monotonic()
        wait_for("all members in the catalogue", lambda: all(
            {i["Id"] for i in platform.passing(service)} == before[service] for service in MEMBERS), RECOVERED)
        say(f"the whole catalogue after {time.monotonic() - began:.1f} s")
        wait_for("the registry's health", lambda: platform.healthy(registry), 30)
    load.none_failed()


def renew_one_by_one(service, files):
    """Stops, removes and re-creates each container of a service. The next one waits until the new one is in use."""
    old = containers(service)
    for container in old:
        run("docker", "stop", container)
        check(platform.inspect(container)["State"]["ExitCode"] == 0, f"{container} did not stop cleanly")
        no_error_logged(container)
        run("docker", "rm", container)
        platform.up("--no-deps", "--no-recreate", "--scale", f"{service}={len(old)}", service, files=files)
        platform.wait_for_passing(service, len(old))
        platform.wait_for_gateway(service, len(old))


def rolling():
    """Re-creates every service in turn. Visit has two replicas; while the only gateway is away, visits go directly."""
    platform.up("--scale", "visit=2", "--scale", "log=3", files=ROLLING)
    platform.wait_for_passing("visit", 2)
    platform.wait_for_gateway("visit", 2)
    try:
        with Load(VIA_GATEWAY) as load:
            for service in ("log", "visit"):
                renew_one_by_one(service, ROLLING)
            compose("up", "--detach", "--wait", "--no-deps", "--force-recreate", "registry", files=ROLLING)
            platform.wait_for_passing("visit", 2, RECOVERED)
            platform.wait_for_passing("log", 3, RECOVERED)
        load.none_failed()
        direct = [f"http://{platform.address(container)}:20003/visit" for container in containers("visit")]
        with Load(*direct) as load:
            compose("up", "--detach", "--wait", "--no-deps", "--force-recreate", "gateway", files=ROLLING)
            platform.wait_for_passing("gateway", 1, RECOVERED)
        load.none_failed(least=20)
        check(get(VIA_GATEWAY)[0] == 200, "the new gateway does not route")
    finally:
        platform.up("--scale", "visit=1")
    platform.wait_for_passing("visit", 1)


def unique_numbers():
    """Each visit of a burst gets a number of its own."""
    with Load(VIA_GATEWAY) as load:
        wait_for("300 visits", lambda: load.done >= 300, 30)
    load.none_failed()
    load.no_number_is_missing()


def tool():
    out = compose("run", "--rm", "hub", "status", "--json")
    listed, _ = json.JSONDecoder().raw_decode(out[out.index("{"):])  # after Compose's own lines
    check({"log", "visit", "gateway"} <= set(listed["Services"]), f"hub status lists {listed}")


def tokens():
    """Only who has a token registers a service, under its own name, until it is revoked; the same for entries."""
    register = ("POST", json.dumps({"Name": "shop", "Addr": "127.1.2.3:9"}))
    services, log = f"{platform.REGISTRY}/services", f"{GATEWAY}/log"
    shop, other = platform.token("--member", "shop"), platform.token("--member", "other")
    wait_for("the new tokens", lambda: get(services, *register, headers=other)[0] == 403, 5)
    for headers, expected in ((None, 401), (other, 403), (shop, 200)):
        status, _, body = get(services, *register, headers=headers)
        check(status == expected, f"{headers} may register: {status} {body!r}")
    check(get(services, "DELETE", register[1], headers=shop)[0] == 200, "it may not leave")
    for method, headers, expected in (("GET", None, 401), ("GET", shop, 403), ("POST", None, 401), ("POST", shop, 200)):
        status, _, body = get(log, method, "hello" if method == "POST" else None, headers=headers)
        check(status == expected, f"{method} /log as {headers}: {status} {body!r}")
    check("hello" in compose("run", "--rm", "hub", "logs"), "hub logs shows no entry")
    check("other" in compose("run", "--rm", "hub", "token", "list"), "hub token list does not show the token")
    compose("run", "--rm", "hub", "token", "revoke", "shop")
    wait_for("the token to be revoked", lambda: get(services, *register, headers=shop)[0] == 401, 20)
    (made,) = containers("tokens", every=True)
    check(platform.inspect(made)["State"]["ExitCode"] == 0, "the service that makes tokens failed")


def down():
    """Takes under 5 s, and every process exits with 0. Entries and volumes stay, and are there after the next up."""
    marker = f"before the end {time.time()}"
    check(platform.write_entry(marker.encode())[0] == 200, "the last entry")
    before = platform.entries()
    since = str(int(time.time()))
    began = time.monotonic()
    compose("down")
    took = time.monotonic() - began
    out = run("docker", "events", "--since", since, "--until", str(int(time.time()) + 1), "--filter", "event=die",
              "--filter", f"label=com.docker.compose.project={platform.PROJECT}",
              "--format", "{{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}")
    codes = dict(line.split() for line in out.splitlines())
    say(f"down in {took:.1f} s; exit codes {sorted(codes.values())}")
    check(len(codes) == 6, f"ended: {codes}")
    check(set(codes.values()) == {"0"}, f"exit codes: {codes}")
    check(took < 5, f"down took {took:.1f} s")
    platform.up()
    after = platform.entries()
    for file, lines in before.items():
        check(after.get(file, [])[: len(lines)] == lines, f"{file} lost entries")
    platform.wait_for_passing("log", 3)
    reader = platform.token("--reader")
    replies = [get(f"http://{platform.address(c)}:20002/log?contains={marker.replace(' ', '%20')}", headers=reader)
               for c in containers("log")]
    holders = [body for status, _, body in replies if status == 200 and marker.encode() in body]
    check(len(holders) == 1, f"{len(holders)} instances answer with the entry from before")


def both_families():
    """On a network with IPv4 and IPv6 every member registers an address of its container, and all reach each other."""
    if not Path("/proc/net/if_inet6").exists():
        raise Skipped("this machine has no IPv6")
    platform.remove()
    platform.up(files=IPV6)
    for service, count in (("log", 3), ("visit", 1), ("gateway", 1)):
        listed = {i["Addr"].rsplit(":", 1)[0] for i in platform.wait_for_passing(service, count)}
        real = set()
        for container in containers(service):
            (network,) = platform.inspect(container)["NetworkSettings"]["Networks"].values()
            check(network["GlobalIPv6Address"], f"{container} has no IPv6 address")
            real |= {network["IPAddress"], f"[{network['GlobalIPv6Address']}]"}
        check(listed <= real, f"{service}: the registry lists {listed}, the containers have {real}")
    for _ in range(30):
        status, _, body = get(VIA_GATEWAY)
        check(status == 200, f"a visit: {status} {body!r}")


def metrics():
    """Every metric named by the dashboard or an alert rule is exported by some instance."""
    folder = ROOT / "docker" / "observability"
    asked = set()
    for file in (folder / "alerts.yaml", folder / "grafana" / "dashboards" / "hubspoke.json"):
        asked |= set(re.findall(r"\bhub_[a-z_]+", file.read_text()))
    shown = ""
    for service, port in (("registry", 20000), ("gateway", 20011), ("log", 20002), ("visit", 20003)):
        status, _, body = get(f"http://{platform.address(containers(service)[0])}:{port}/metrics")
        check(status == 200, f"{service}: /metrics answers {status}")
        shown += body.decode()
    names = set(re.findall(r"^(\w+)[{ ]", shown, re.MULTILINE))
    # These appear with the first failure or loss; the others with TLS.
    later = {"hub_gateway_failures_total", "hub_telemetry_lost_total"}
    tls = {name for name in asked if name.startswith("hub_tls_")}
    check(asked - names <= later | tls, f"no instance exports {sorted(asked - names)}")


def no_errors_logged():
    """Nothing has panicked or logged an error since the containers were created."""
    for service in ("registry", *MEMBERS):
        for container in containers(service):
            no_error_logged(container)


def no_error_logged(container):
    out = run("docker", "logs", container)
    bad = [line for line in out.splitlines() if '"level":"ERROR"' in line or "panicked" in line]
    check(not bad, f"{container} logged {bad[:3]}")


CASES = (
    ("log replicas have their own addresses", own_addresses),
    ("log replicas have their own files", files_apart),
    ("no root, no capabilities, nothing writable but volumes", isolation.unprivileged),
    ("hub status from a container", tool),
    ("tokens", tokens),
    ("metrics for dashboard and alerts", metrics),
    ("balance over 3", lambda: balance(3)),
    ("balance over 5, 1 and 3 again", balance_of_5_and_1),
    ("scale to 5, 1 and 3 under load", scale),
    ("each visit has its own number", unique_numbers),
    ("log replica crashed (kill -9) under load", crashed),
    ("log replica killed (docker kill) under load", killed),
    ("log replica paused under load", paused),
    ("log replica cut off from the network under load", cut_off),
    ("registry killed (docker kill) under load", registry_killed),
    ("no errors logged so far", no_errors_logged),
    ("registry re-created under load", registry_recreated),
    ("the only visit re-created under load", visit_recreated),
    ("rolling re-creation of every service under load", rolling),
    ("no errors logged", no_errors_logged),
    ("down within 5 s with exit codes 0, entries survive", down),
    ("a network with IPv6", both_families),
    ("several registries and one count on etcd, each killed under load", ha_cases.killed),
)
