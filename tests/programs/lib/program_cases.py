"""Real programs, by path, whose prefix is stripped, and by host. Each must be reachable and leave nothing behind."""

import random
import socket
import threading
import time
from contextlib import closing

from .platform import eventually


def test_python_file_server(bench):
    with bench.run("Python's file server", "files") as platform:
        platform.passes("/files/hello.txt", "hello from a file")
        platform.passes("/hello.txt", "hello from a file", host="files.localhost")
        # The redirect to the folder's slash keeps the prefix.
        platform.redirects("/files/static", "/files/static/")
        platform.redirects("/static", "/static/", host="files.localhost")


def test_flask(bench):
    with bench.run("Flask", "flask") as platform:
        platform.passes("/flask/", "hello from flask")
        platform.passes("/", "hello from flask", host="flask.localhost")
        platform.redirects("/flask/old", "/flask/new")
        platform.redirects("/old", "/new", host="flask.localhost")
        assert "Path=/flask/" in platform.get("/flask/cookie")[1]["Set-Cookie"]
        assert platform.get("/cookie", "flask.localhost")[1]["Set-Cookie"].endswith("Path=/")
    logs = bench.platform.logs("flask")
    assert "Running on http://127.0.0.1:" in logs, logs


def test_flask_on_gunicorn_with_replicas(bench):
    with bench.run("gunicorn, any WSGI", "gunicorn", options=("--replicas", "3")) as platform:
        eventually("three replicas", lambda: len(platform.instances("gunicorn")) == 3)
        platform.passes("/gunicorn/", "hello from flask")
        eventually(
            "all are used",
            lambda: len({platform.get("/gunicorn/")[1]["Hub-Instance"] for _ in range(30)}) == 3,
        )


def test_django(bench):
    with bench.django("django") as platform:
        platform.passes("/", "hello from django", host="django.localhost")
        platform.redirects("/admin/", "/admin/login/?next=/admin/", host="django.localhost")
        platform.passes("/static/admin/css/base.css", "html", host="django.localhost")
        # By path: its redirects are put right by the gateway.
        platform.passes("/django/", "hello from django")
        status, headers, _ = platform.get("/django/admin/")
        assert status == 302 and headers["Location"].startswith("/django/admin/login/"), headers["Location"]


def test_fastapi(bench):
    with bench.run("FastAPI, any ASGI", "fastapi") as platform:
        platform.passes("/fastapi/hello/ada", "hello, ada")
        platform.passes("/docs", "swagger", host="fastapi.localhost")
        platform.passes("/openapi.json", "hello", host="fastapi.localhost")
        platform.redirects("/fastapi/old", "/fastapi/new")


def test_node(bench):
    with bench.run("Node, Express", "node") as platform:
        platform.passes("/node/", "hello from node")
        platform.passes("/any/path?x=1", "/any/path?x=1", host="node.localhost")


def test_go(bench):
    with bench.run("Go, Rust", "go") as platform:
        platform.passes("/go/a/b", "hello from go at /a/b")
        platform.passes("/a/b", "hello from go at /a/b", host="go.localhost")
        platform.redirects("/go/old", "/go/new")
        assert "Path=/go/" in platform.get("/go/")[1]["Set-Cookie"]


def test_php(bench):
    with bench.run("PHP", "php") as platform:
        platform.passes("/php/any?x=1", "hello from php at /any?x=1")
        platform.passes("/any", "hello from php at /any", host="php.localhost")
        platform.redirects("/php/old", "/php/new")
        cookie = platform.get("/php/")[1]["Set-Cookie"]
        assert "PHPSESSID=" in cookie and "path=/php/" in cookie.lower(), cookie


def test_java(bench):
    # A JDK compiles the file when it starts it.
    with bench.run("Java", "java") as platform:
        platform.passes("/java/", "hello from java")
        platform.passes("/", "hello from java", host="java.localhost")


def test_two_of_one_name_share(bench):
    with bench.run("Python's file server", "pair") as platform:
        row = bench.rows["Python's file server"]
        rival = platform.start("pair", row.command, row.folder)
        eventually("two instances", lambda: len(platform.instances("pair")) == 2)
        rival.kill()
        rival.communicate()
        killed = time.monotonic()
        eventually("the killed one is gone", lambda: len(platform.instances("pair")) == 1)
        assert time.monotonic() - killed < 2


def test_each_is_routable_soon_after_its_port_opens(bench):
    """200 ms is the requirement, which the figures show; what is asserted leaves room for a busy machine."""
    slow = []
    for title, row in bench.rows.items():
        if bench.lacks(title):
            continue
        port = free_port()
        name = f"soon-{row.folder}"
        opened = Opened(port)
        with bench.run(title, name, options=("--port", str(port))) as platform:
            # When the first request that got to it was sent: how long its answer takes is up to the program.
            took = (eventually(f"{name} is routed", lambda: routed(platform, name), pause=0.002) - opened.at()) * 1000
        print(f"       {title}: routable {took:.0f} ms after its port had opened", flush=True)
        if took > 2000:
            slow.append((title, took))
    assert not slow, slow


def routed(platform, name):
    sent = time.monotonic()
    return sent if "Hub-Instance" in platform.get(f"/{name}/")[1] else None


class Opened:
    """When somebody first listened on a port."""

    def __init__(self, port):
        self._time = None
        self._thread = threading.Thread(target=self._watch, args=(port,), daemon=True)
        self._thread.start()

    def _watch(self, port):
        while True:
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    self._time = time.monotonic()
                    return
            time.sleep(0.001)

    def at(self):
        self._thread.join(30)
        return self._time


def free_port():
    """A port outside of those that Linux gives to outgoing connections."""
    while True:
        port = random.randrange(21_000, 32_000)
        with closing(socket.socket()) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
