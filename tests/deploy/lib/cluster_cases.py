"""The manifests on a real Kubernetes: applied, scaled, restarted, broken, under load, with failures counted."""

import contextlib
import json
import shutil
import time

from . import harness, images
from .cluster import Cluster, kubectl, ready, root
from .harness import Failed, Skipped, check, run, say, wait_for
from .load import Load, get

GATEWAY = "http://127.0.0.1:30001"  # the dev overlay's port on the node
VISIT = f"{GATEWAY}/visit"
# Kubernetes 1.20 has these in older forms only.
YOUNGER = {"PodDisruptionBudget", "HorizontalPodAutoscaler"}


def run_all(report, keep):
    with contextlib.ExitStack() as stack:
        if report.case("cluster: no other run", lambda: stack.enter_context(harness.alone()), always=True):
            run_alone(report, keep)


def run_alone(report, keep):
    if not report.case("cluster: requirements", possible, always=True):
        return
    if not report.case("cluster: images", images.build, always=True):
        return
    with Cluster() as cluster:
        report.case("cluster: apply -f k8s, except for kinds newer than 1.20", base_applies)
        if report.case("cluster: the dev overlay comes up", come_up, cluster, always=True):
            for name, case in CASES:
                report.case(f"cluster: {name}", case)
        if keep:
            input("    running; press enter to stop ")
        report.case("cluster: the namespace is deleted", delete_namespace)


def possible():
    for command in ("docker", "kubectl", "apt-get"):
        if not shutil.which(command):
            raise Skipped(f"no {command}")
    if not root():
        raise Skipped("a kubelet needs root")


def apply(*arguments):
    """Applies manifests. Only objects of kinds that this version does not know may be refused."""
    out = kubectl("apply", *arguments, may_fail=True)
    for line in out.splitlines():
        known = line.endswith((" created", " configured", " unchanged", "ensure CRDs are installed first"))
        younger = "no matches for kind" in line and any(f'"{kind}"' in line for kind in YOUNGER)
        if not known and not younger and line.strip():
            raise Failed(f"apply: {line}")
    return out


def base_applies():
    out = apply("-f", "k8s")
    check(out.count("networkpolicy") >= 8 and "statefulset.apps/log" in out, f"too little was applied:\n{out}")
    delete_namespace()


def come_up(cluster):
    for name in images.NAMES:
        run("docker", "tag", f"hubspoke/{name}:test", f"hubspoke/{name}:0.1.0")
    began = time.monotonic()
    apply("-k", "config/k8s/overlays/dev")
    address = kubectl("-n", "hubspoke", "get", "service/registry", "-o", "jsonpath={.spec.clusterIP}")
    cluster.name("registry.hubspoke.svc.cluster.local", address)
    for kind, name, count in (("deployment", "registry", 1), ("statefulset", "log", 3), ("deployment", "visit", 1),
                              ("deployment", "gateway", 2)):
        ready(kind, name, count)
    say(f"all ready in {time.monotonic() - began:.1f} s")
    wait_for("the first visit", lambda: get(VISIT)[0] == 200, 30)


def instances():
    """Returns the ids of the instances that answer POST /log through the gateway."""
    return {get(f"{GATEWAY}/log", "POST", b"whose pod is this?")[1].get("Hub-Instance") for _ in range(60)}


def scale():
    with Load(VISIT) as load:
        for count in (5, 1, 3):
            kubectl("-n", "hubspoke", "scale", "statefulset/log", f"--replicas={count}")
            ready("statefulset", "log", count)
            wait_for(f"{count} instances behind the gateway", lambda n=count: len(instances()) == n, 30)
            say(f"{count} log replicas")
    load.none_failed()


def restarted(kind, name, count):
    def case():
        with Load(VISIT) as load:
            kubectl("-n", "hubspoke", "rollout", "restart", f"{kind}/{name}")
            kubectl("-n", "hubspoke", "rollout", "status", f"{kind}/{name}", "--timeout=180s", timeout=200)
            ready(kind, name, count)
            time.sleep(3)  # what a rollout breaks may show a moment later
        load.none_failed()

    return case


def pod_lost():
    """Deletes a log pod without a grace period, as if its node were lost."""
    with Load(VISIT) as load:
        kubectl("-n", "hubspoke", "delete", "pod/log-1", "--grace-period=0", "--force")
        ready("statefulset", "log", 3)
        wait_for("3 instances behind the gateway", lambda: len(instances()) == 3, 60)
    load.none_failed()


def crash():
    """kill -9 of the registry's process. The container restarts with its catalogue."""
    with Load(VISIT) as load:
        out = run("docker", "ps", "--quiet", "--filter", "name=k8s_registry_registry")
        run("docker", "kill", "--signal", "KILL", out.split()[0])
        wait_for("the restart", lambda: restarts("registry") >= 1, 60)
        ready("deployment", "registry", 1)
        time.sleep(3)
    load.none_failed()


def restarts(name):
    out = kubectl("-n", "hubspoke", "get", "pods", "-l", f"app.kubernetes.io/name={name}", "-o",
                  "jsonpath={.items[*].status.containerStatuses[*].restartCount}")
    return sum(map(int, out.split()))


def unprivileged():
    pods = json.loads(kubectl("-n", "hubspoke", "get", "pods", "-o", "json"))["items"]
    check(len(pods) == 7, f"{len(pods)} pods, not 7")
    for pod in pods:
        name = pod["metadata"]["name"]
        out = kubectl("-n", "hubspoke", "exec", name, "--", "/bin/sh", "-c", "id", may_fail=True)
        check("no such file" in out, f"{name} has a shell: {out}")
        for status in pod["status"]["containerStatuses"]:
            container = status["containerID"].removeprefix("docker://")
            pid = run("docker", "inspect", "--format", "{{.State.Pid}}", container).strip()
            with open(f"/proc/{pid}/status", encoding="utf-8") as file:
                lines = dict(line.rstrip().split(":\t", 1) for line in file if ":\t" in line)
            check(lines["Uid"].split() == ["65532"] * 4 and int(lines["CapBnd"], 16) == 0, f"{name}: {lines['Uid']}")
            check(lines["NoNewPrivs"] == "1" and lines["Seccomp"] == "2", f"{name}: not confined")
            check(status["restartCount"] == 0 or "registry" in name, f"{name} was restarted")


def delete_namespace():
    kubectl("delete", "namespace", "hubspoke", "--timeout=120s", timeout=150)


CASES = (
    ("pods are unprivileged", unprivileged),
    ("scale log to 5, 1 and 3 under load", scale),
    ("rollout of log under load", restarted("statefulset", "log", 3)),
    ("rollout of visit under load", restarted("deployment", "visit", 1)),
    ("rollout of gateway under load", restarted("deployment", "gateway", 2)),
    ("rollout of registry under load", restarted("deployment", "registry", 1)),
    ("log pod lost under load", pod_lost),
    ("registry crashes under load", crash),
)
