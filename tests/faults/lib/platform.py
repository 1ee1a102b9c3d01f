"""etcd, registries, logs, visits and gateways on a machine each, and members that this process plays."""

import datetime
import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

from .machines import MEMBER, Failed, Machine, eventually, get, sh

FAKES = 20
LOAD = Path(__file__).with_name("load.py")


class Answers(http.server.BaseHTTPRequestHandler):
    """Of a member: heartbeats and requests are answered with 200."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Platform:
    def __init__(self, folder, binaries, rate):
        self.folder, self.rate = folder, rate
        machine = lambda name, ip: Machine(name, ip, folder)
        self.etcd = [machine(f"etcd-{n}", f"10.77.1.{n}") for n in (1, 2, 3)]
        self.registries = [machine(f"registry-{n}", f"10.77.2.{n}") for n in (1, 2, 3)]
        self.logs = [machine(f"log-{n}", f"10.77.3.1{n}") for n in (1, 2, 3)]
        self.visits = [machine(f"visit-{n}", f"10.77.3.2{n}") for n in (1, 2)]
        self.gateways = [machine(f"gateway-{n}", f"10.77.3.3{n}") for n in (1, 2)]
        cluster = ",".join(f"{it.name}=http://{it.ip}:2380" for it in self.etcd)
        for it in self.etcd:
            client, peer = f"http://{it.ip}:2379", f"http://{it.ip}:2380"
            it.command = ["etcd", "--name", it.name, "--data-dir", it.folder / "data", "--logger", "zap",
                          "--listen-client-urls", client, "--advertise-client-urls", client,
                          "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                          "--initial-cluster", cluster, "--initial-cluster-state", "new"]
        engine = {"HUB_ETCD__ENDPOINTS": ",".join(f"http://{it.ip}:2379" for it in self.etcd)}
        member = {"HUB_REGISTRY__URL": ",".join(self.url(it) for it in self.registries)}
        own = {
            "registry": {**engine, "HUB_REGISTRY__STORE": "etcd"},
            "log": member,
            "visit": {**member, **engine, "HUB_VISIT__STATE": "etcd", "HUB_LOG_CLIENT__COPIES": "2"},
            "gateway": {**member, "HUB_GATEWAY__EXPOSE": "log,visit,greeter"},
        }
        for it in self.hubspoke():
            kind = it.name.partition("-")[0]
            it.command = [binaries / kind]
            it.env = {"HUB_LISTEN": f"{it.ip}:20000", "HUB_TELEMETRY__LOG": "info", **own[kind]}
            if kind == "gateway":
                it.env["HUB_CONTROL_LISTEN"] = f"{it.ip}:20010"

    def hubspoke(self):
        return [*self.registries, *self.logs, *self.visits, *self.gateways]

    @staticmethod
    def url(machine):
        return f"http://{machine.ip}:20000"

    def start(self):
        for machine in self.etcd:
            machine.start()
        self.leader()
        for machine in self.hubspoke():
            machine.start()
        for machine in self.hubspoke():
            self.ready(machine)
        self.member = http.server.ThreadingHTTPServer((MEMBER, 0), Answers)
        self.member.daemon_threads = True
        threading.Thread(target=self.member.serve_forever, daemon=True).start()
        # They never renew and never come back: if one is removed, it is missing.
        for n in range(FAKES):
            self.register(self.registries[n % 3], f"fake-{n}", f"fake-{n}")
        eventually("visits and entries are answered", lambda: all(
            get(f"{self.url(gateway)}/visit")[0] == 200 and get(f"{self.url(gateway)}/log", "POST", b"first")[0] == 200
            for gateway in self.gateways))
        self.live = eventually("all are passing", self.settled)
        self.load_file = self.folder / "load.txt"
        command = [sys.executable, LOAD, str(self.rate), *(f"{it.ip}:20000" for it in self.gateways)]
        with open(self.load_file, "w") as out:
            self.load = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out)

    def ready(self, machine):
        port = 20010 if machine in self.gateways else 20000
        eventually(f"{machine.name} is ready", lambda: get(f"http://{machine.ip}:{port}/readyz")[0] == 200)

    def register(self, registry, name, id):
        """As a patient member: it asks again while it gets 503. Returns what it has registered."""
        info = {"Name": name, "Addr": f"{MEMBER}:{self.member.server_address[1]}", "Id": id}
        self.call(registry, "POST", info)
        return info

    def deregister(self, registry, info):
        self.call(registry, "DELETE", info)

    def call(self, registry, method, info):
        def called():
            status, _, body = get(f"{self.url(registry)}/services", method, json.dumps(info).encode())
            if status not in (200, 503):
                raise Failed(f"{method} {info}: {status} {body}")
            return status == 200
        eventually(f"{method} {info} is taken by {registry.name}", called)

    # etcd

    def etcdctl(self, *arguments):
        endpoints = ",".join(f"http://{it.ip}:2379" for it in self.etcd)
        return sh("env", "ETCDCTL_API=3", "etcdctl", f"--endpoints={endpoints}", *arguments)

    def leader(self):
        """Waits until etcd has a leader; returns it."""
        def found():
            for machine in self.etcd:
                try:
                    _, _, body = get(f"http://{machine.ip}:2379/v3/maintenance/status", "POST", b"{}", timeout=0.5)
                except OSError:
                    continue
                status = json.loads(body)
                if status.get("leader") == status["header"]["member_id"]:
                    return machine
            return None
        return eventually("etcd has a leader", found)

    def etcd_healthy(self, machine):
        def healthy():
            return b'"true"' in get(f"http://{machine.ip}:2379/health")[2]
        eventually(f"{machine.name} is healthy", healthy)

    def revision(self):
        return json.loads(self.etcdctl("get", "x", "--write-out=json"))["header"]["revision"]

    # What registries show

    def view(self, registry):
        """Epoch, and state by name and id of whoever is not removed."""
        status, _, body = get(f"{self.url(registry)}/services")
        if status != 200:
            raise OSError(f"{registry.name}: {status}")
        view = json.loads(body)
        instances = {(name, it["Id"]): it["State"] for name, all in view["Services"].items() for it in all}
        live = {key: state for key, state in instances.items() if state != "removed"}
        epoch = str(view["Revision"]).partition(".")[0]
        return epoch, live, view["Registries"]

    def equal(self):
        """Whether all registries show the same."""
        views = [self.view(registry)[:2] for registry in self.registries]
        return views[0] if views.count(views[0]) == len(views) else None

    def settled(self):
        """The same, with everybody passing, and every registry in etcd."""
        found = self.equal()
        if not found or any(state != "passing" for state in found[1].values()):
            return None
        every = all(len(self.view(registry)[2]["Registries"]) == len(self.registries) for registry in self.registries)
        return found if every and len(found[1]) == FAKES + 7 else None

    def clock_is_off(self, registry, seconds):
        """Whether the wall clock of a registry is wrong by this, give or take half a minute."""
        view = json.loads(get(f"{self.url(registry)}/services")[2])
        newest = max(it["LastHeartbeat"] for all in view["Services"].values() for it in all if it.get("LastHeartbeat"))
        off = datetime.datetime.fromisoformat(newest) - datetime.datetime.now(datetime.timezone.utc)
        return abs(off.total_seconds() - seconds) < 30

    def removals(self, registry):
        """How many removals for missed heartbeats a registry has seen since it was started."""
        _, _, body = get(f"{self.url(registry)}/metrics")
        lines = [line for line in body.decode().splitlines()
                 if line.startswith("hub_registry_removals_total{") and 'reason="heartbeat"' in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    # The load

    def answered(self, until):
        """Waits until all requests that began before this are answered; returns all lines so far."""
        def marked():
            with open(self.load_file, "rb") as file:
                file.seek(max(0, file.seek(0, 2) - 200_000))
                marks = [line for line in file.read().split(b"\n") if line.startswith(b"mark ")]
            # The last one may be half written.
            return len(marks) > 1 and float(marks[-2].split()[1]) > until
        eventually("the load is answered", marked, within=60)
        return [Request(line) for line in self.load_file.read_text().splitlines()[:-1] if not line.startswith("mark")]

    def stop(self):
        """In the order of an orderly stop; registries and logs must not hang."""
        self.load.stdin.close()
        self.load.wait(30)
        for machines in (self.gateways, self.visits, self.logs, self.registries, self.etcd):
            for machine in machines:
                machine.stop()


class Request:
    """One line of the load."""

    def __init__(self, line):
        begun, took, self.kind, status, number, self.gateway, self.problem = line.split(" ", 6)
        self.begun, self.took, self.status, self.number = float(begun), float(took), int(status), int(number)

    @property
    def ended(self):
        return self.begun + self.took

    def __str__(self):
        return f"{self.kind} through {self.gateway} after {self.took:.2f} s: {self.status} {self.problem}"


def one_counter(requests):
    """Holds visits to what one counter would have done: no number twice; and of two visits of which one was answered
    before the other began, the earlier one has the lower number. Returns how many there are, and how far their numbers
    reach."""
    visits = sorted((it for it in requests if it.kind == "visit" and it.status == 200), key=lambda it: it.number)
    numbers = [it.number for it in visits]
    if len(set(numbers)) != len(numbers):
        raise Failed("a number was given twice")
    latest = None
    for visit in visits:
        if latest and visit.ended < latest.begun:
            raise Failed(f"{visit.number} was answered before {latest.number} was asked for")
        if latest is None or visit.begun > latest.begun:
            latest = visit
    return len(numbers), numbers[-1] - numbers[0] + 1

