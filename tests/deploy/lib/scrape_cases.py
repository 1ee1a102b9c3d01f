"""A real Prometheus with the shipped alert rules scrapes `hub up` on this machine. Needs no Docker Engine."""

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from .harness import ROOT, Failed, check, run, wait_for

JOBS = ("registry", "gateway", "log", "visit")


def scraped(prometheus, promtool):
    """promtool accepts each process' metrics, Prometheus scrapes them and evaluates the rules on them."""
    run("cargo", "build", "--quiet", "--locked", "-p", "hubspoke", "--bin", "hub", timeout=900)
    hub = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "hub"
    *ports, public, own = free_ports(len(JOBS) + 2)
    at = {job: f"127.0.0.1:{port}" for job, port in zip(JOBS, ports)}
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HUB_", "OTEL_"))} | {
        "HUB_LISTEN": at["registry"],
        "HUB_HUB__GATEWAY": f"127.0.0.1:{public}",
        "HUB_HUB__GATEWAY_CONTROL": at["gateway"],
        "HUB_HUB__LOG": at["log"],
        "HUB_HUB__VISIT": at["visit"],
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        folder = Path(folder)
        environment["HUB_HUB__DATA_DIR"] = str(folder / "data")
        running.enter_context(process([hub, "up", "--log", "1"], folder, env=environment))
        wait_for("visits through the gateway", lambda: fetch(f"http://127.0.0.1:{public}/visit"), 60)
        for job in JOBS:
            lint(promtool, job, fetch(f"http://{at[job]}/metrics"))
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ROOT / "docker/observability/alerts.yaml")],
            "scrape_configs": [{"job_name": job, "static_configs": [{"targets": [at[job]]}]} for job in JOBS],
        }
        (folder / "prometheus.yaml").write_text(json.dumps(config))  # JSON is valid YAML
        command = [prometheus, "--config.file=prometheus.yaml", "--storage.tsdb.path=tsdb"]
        running.enter_context(process([*command, f"--web.listen-address=127.0.0.1:{own}"], folder))

        def api(path):
            return json.loads(fetch(f"http://127.0.0.1:{own}/api/v1/{path}"))["data"]

        def all_up():
            up = {one["metric"]["job"]: one["value"][1] for one in api("query?query=up")["result"]}
            return up == dict.fromkeys(JOBS, "1")

        def all_evaluated():
            rules = [rule for group in api("rules")["groups"] for rule in group["rules"]]
            return rules if rules and all(rule["health"] != "unknown" for rule in rules) else None

        wait_for("every job is up", all_up, 30)
        rules = wait_for("every rule is evaluated", all_evaluated, 30)
        wrong = {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"}
        check(not wrong, f"rules in error: {wrong}")
        firing = [alert["labels"]["alertname"] for alert in api("alerts")["alerts"] if alert["state"] == "firing"]
        check(not firing, f"on a healthy platform: {firing}")


def lint(promtool, job, text):
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    if done.returncode or done.stderr.strip():
        raise Failed(f"the metrics of {job}: {done.stdout}{done.stderr}")


def fetch(url):
    with urllib.request.urlopen(url, timeout=5) as reply:
        return reply.read().decode()


def free_ports(count):
    """All are held until the last one is known, so they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def process(command, folder, **options):
    """Runs a command for the duration of the block. Its output is part of the error if the block fails."""
    with open(folder / Path(command[0]).name, "w+") as output:
        child = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, stdin=subprocess.DEVNULL, **options)
        try:
            yield
        except Exception as why:
            output.seek(0)
            raise Failed(f"{why}\n{output.read()[-2000:]}") from why
        finally:
            child.terminate()
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
