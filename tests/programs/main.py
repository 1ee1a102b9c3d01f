"""Runs real programs with `hub run -- COMMAND`, and asks them through the gateway: by path, whose prefix is stripped,
and by host. Each must be reachable, be in the log, and leave nothing behind."""

import argparse
import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HUB = ROOT / "target/debug/hub"
APPS = Path(__file__).resolve().parent / "apps"
PYTHON = sys.executable
BIN = Path(PYTHON).parent
DEADLINE = 30


def eventually(what, condition):
    end = time.monotonic() + DEADLINE
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {DEADLINE} s: {what}")
        time.sleep(0.02)
    return found


class Platform:
    """`hub up` on free ports."""

    def __init__(self, folder):
        keys = ["LISTEN", "HUB__GATEWAY", "HUB__GATEWAY_CONTROL", "HUB__LOG", "HUB__VISIT"]
        env = {f"HUB_{key}": "127.0.0.1:0" for key in keys}
        env |= {"PATH": os.environ["PATH"], "HUB_TELEMETRY__LOG": "warn"}
        self.process = subprocess.Popen(
            [HUB, "up"], cwd=folder, env=env, stdout=subprocess.PIPE, text=True
        )
        addrs = {}
        for line in self.process.stdout:
            words = line.split()
            if len(words) > 1 and words[1].startswith("http://"):
                addrs.setdefault(words[0], words[1].removeprefix("http://"))
            if "ctrl-c" in line:
                break
        self.registry, self.gateway = addrs["registry"], addrs["gateway"]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)

    def get(self, path, host=None, headers=None, method="GET", body=None):
        """The response of the gateway: status, headers and body."""
        connection = http.client.HTTPConnection(self.gateway, timeout=10)
        headers = dict(headers or {})
        if host:
            headers["Host"] = f"{host}:{self.gateway.rsplit(':', 1)[1]}"
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        answer = (response.status, response.headers, response.read().decode())
        connection.close()
        return answer

    def instances(self, name):
        connection = http.client.HTTPConnection(self.registry, timeout=10)
        connection.request("GET", "/services")
        services = json.load(connection.getresponse())["Services"]
        return [one for one in services.get(name, []) if one["State"] != "removed"]

    @contextlib.contextmanager
    def run(self, name, *command, options=(), folder=APPS, env=None):
        """`hub run`. Afterwards, nothing is left."""
        environment = {"PATH": os.environ["PATH"], "HUB_REGISTRY__URL": f"http://{self.registry}", "MARK": name}
        environment |= env or {}
        process = subprocess.Popen(
            [HUB, "run", "--name", name, *options, "--", *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            eventually(
                f"{name} is registered", lambda: process.poll() is not None or self.instances(name)
            )
            assert process.poll() is None, process.stdout.read()
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, (process.returncode, output)
        assert not self.instances(name)
        left = [pid for pid in Path("/proc").glob("[0-9]*") if f"MARK={name}" in environment_of(pid)]
        assert not left, left


def environment_of(folder):
    try:
        return (folder / "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def passes(platform, path, text, **options):
    """Waits until the gateway knows the service, and then for the answer."""

    def answered():
        status, _, body = platform.get(path, **options)
        return status == 200 and text in body

    eventually(f"{path} has {text!r}", answered)


def test_python_file_server(platform):
    with platform.run("files", PYTHON, "-m", "http.server", "--bind", "{host}", "{port}"):
        passes(platform, "/files/hello.txt", "hello from a file")
        passes(platform, "/hello.txt", "hello from a file", host="files.localhost")
        # The redirect to the folder's slash keeps the prefix.
        status, headers, _ = platform.get("/files/static")
        assert (status, headers["Location"]) == (301, "/files/static/"), (status, headers["Location"])


def test_flask(platform):
    with platform.run("flask", BIN / "flask", "--app", "flask_app", "run", "--port", "{port}"):
        passes(platform, "/flask/", "hello from flask")
        passes(platform, "/", "hello from flask", host="flask.localhost")
        status, headers, _ = platform.get("/flask/old")
        assert (status, headers["Location"]) == (302, "/flask/new"), headers["Location"]
        _, headers, _ = platform.get("/flask/cookie")
        assert "Path=/flask/" in headers["Set-Cookie"], headers["Set-Cookie"]
    logs = subprocess.run(
        [HUB, "logs", "--source", "flask", "--registry", platform.registry], capture_output=True, text=True
    ).stdout
    assert "Running on http://127.0.0.1:" in logs, logs


def test_flask_on_gunicorn_with_replicas(platform):
    with platform.run(
        "gunicorn", BIN / "gunicorn", "flask_app:app", "--bind", "{host}:{port}", options=("--replicas", "3")
    ):
        eventually("three replicas", lambda: len(platform.instances("gunicorn")) == 3)
        passes(platform, "/gunicorn/", "hello from flask")
        eventually(
            "all are used",
            lambda: len({platform.get("/gunicorn/")[1]["Hub-Instance"] for _ in range(30)}) == 3,
        )


def test_django(platform):
    command = (PYTHON, "django_app.py", "runserver", "--noreload", "{port}")
    with tempfile.TemporaryDirectory() as folder:
        env = {"DATABASE": f"{folder}/db.sqlite"}
        migrate = [PYTHON, "django_app.py", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, cwd=APPS, env=env | {"PATH": os.environ["PATH"]}, check=True)
        with platform.run("django", *command, env=env):
            passes(platform, "/", "hello from django", host="django.localhost")
            status, headers, _ = platform.get("/admin/", host="django.localhost")
            assert (status, headers["Location"]) == (302, "/admin/login/?next=/admin/")
            passes(platform, "/admin/login/?next=/admin/", "csrfmiddlewaretoken", host="django.localhost")
            passes(platform, "/static/admin/css/base.css", "html", host="django.localhost")
            # By path: redirects and cookies are put right by the gateway.
            passes(platform, "/django/", "hello from django")
            _, headers, _ = platform.get("/django/admin/")
            assert headers["Location"].startswith("/django/admin/login/"), headers["Location"]


def test_fastapi(platform):
    with platform.run("fastapi", BIN / "uvicorn", "fastapi_app:app", "--port", "{port}"):
        passes(platform, "/fastapi/hello/ada", "hello, ada")
        passes(platform, "/docs", "swagger", host="fastapi.localhost")
        passes(platform, "/openapi.json", "hello", host="fastapi.localhost")


def test_node(platform):
    with platform.run("node", "node", "node_app.mjs"):
        passes(platform, "/node/", "hello from node")
        passes(platform, "/any/path?x=1", "/any/path?x=1", host="node.localhost")


def test_java(platform):
    # A JDK compiles the file when it starts it.
    with platform.run("java", "java", "HelloServer.java", options=("--ready-timeout", "30s")):
        passes(platform, "/java/", "hello from java")


def test_php(platform):
    with platform.run("php", "php", "-S", "{host}:{port}"):
        passes(platform, "/php/hello.txt", "hello from a file")


def test_two_of_one_name_share(platform):
    command = (PYTHON, "-m", "http.server", "--bind", "{host}", "{port}")
    with platform.run("pair", *command) as first:
        rival = subprocess.Popen(
            [HUB, "run", "--name", "pair", "--", *command],
            cwd=APPS,
            env={"PATH": os.environ["PATH"], "HUB_REGISTRY__URL": f"http://{platform.registry}"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually("two instances", lambda: len(platform.instances("pair")) == 2)
        rival.kill()
        rival.wait()
        killed = time.monotonic()
        eventually("the killed one is gone", lambda: len(platform.instances("pair")) == 1)
        assert time.monotonic() - killed < 2
        assert first.poll() is None


NEEDS = {"test_node": "node", "test_java": "javac", "test_php": "php"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", metavar="TEXT", default="", help="only cases whose name contains TEXT")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform(folder)
        try:
            for name, case in list(globals().items()):
                if not name.startswith("test_") or options.k not in name:
                    continue
                if name in NEEDS and not shutil.which(NEEDS[name]):
                    print(f"skip {name[5:]}: {NEEDS[name]} is not on this machine")
                    continue
                started = time.monotonic()
                try:
                    case(platform)
                except Exception as error:  # noqa: BLE001
                    failed += 1
                    print(f"FAIL {name[5:]}: {type(error).__name__}: {error}")
                else:
                    passed += 1
                    print(f"ok   {name[5:]} ({time.monotonic() - started:.1f} s)", flush=True)
        finally:
            platform.stop()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
