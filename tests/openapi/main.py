"""Checks that the description is valid OpenAPI 3.1, and fuzzes a registry to check that its answers match it, without a
token and with one.

A registry connects to the members that register (heartbeats, pushes, the log tail). So the fuzzed one allows only
addresses in 127.83.0.0/16: on the loopback interface of this machine, but not 127.0.0.1, where other programs listen. It
refuses all others with the 403 that is described."""

import collections
import contextlib
import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/page"))

from lib.cases import run_all  # noqa: E402
from lib.registry import Registry  # noqa: E402  (found by the path just set)

TOKEN = "hush"
# Examples per operation and phase; schemathesis adds some.
EXAMPLES = 100
# Streams never end, so they can't be fuzzed. The registry's own tests cover them.
ENDLESS = ["/services/watch", "/log/tail"]
# Answers that must occur: a run in which everything is refused would prove nothing.
MUST_OCCUR = [
    "POST /services 200",
    "POST /services 403",
    "DELETE /services 200",
    "GET /services 200",
    "GET /services/{name} 200",
    "GET /services/{name} 404",
    "DELETE /services/{name}/{instance} 200",
    "DELETE /services/{name}/{instance} 404",
    "PUT /services/{name}/{instance}/drain 200",
    "DELETE /services/{name}/{instance}/drain 200",
    "PUT /protection 200",
    "PUT /protection 422",
    "GET /metrics 200",
]


class Answers(http.server.BaseHTTPRequestHandler):
    """A minimal member: it answers heartbeats and accepts pushes."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b'{"Status":"serving","Requests":1,"InFlight":0}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_GET

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def member():
    """Runs a member; yields its address."""
    with http.server.ThreadingHTTPServer(("127.83.0.1", 0), Answers) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "%s:%s" % server.server_address
        server.shutdown()


@contextlib.contextmanager
def registry(token=None):
    with tempfile.TemporaryDirectory() as folder:
        process = Registry(folder, token, HUB_REGISTRY__ALLOW_ADDRS="127.83.0.0/16")
        try:
            yield process, pathlib.Path(folder)
        finally:
            process.stop()


def described(process):
    return json.load(urllib.request.urlopen(f"{process.url}/openapi.json", timeout=5))


def test_the_description_is_openapi_3_1():
    from openapi_spec_validator import OpenAPIV31SpecValidator

    with registry() as (process, _):
        wrong = [str(error) for error in OpenAPIV31SpecValidator(described(process)).iter_errors()]
    assert not wrong, wrong


def test_answers_match_the_description():
    fuzz()


def test_answers_match_the_description_with_a_token():
    fuzz(TOKEN)


def fuzz(token=None):
    with registry(token) as (process, folder), member() as addr:
        document = described(process)
        env, shown = {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(pathlib.Path(__file__).parent)}, []
        if token:
            env["FUZZED_AUTHORIZATION"] = f"Bearer {token}"
            shown = ["--header", f"Authorization: Bearer {token}"]
            # This registry has a token, so the token is no longer optional, and a success without it is an error.
            for operation in (one for path in document["paths"].values() for one in path.values()):
                operation["security"] = [need for need in operation.get("security", []) if need]
        schema, answers = folder / "openapi.json", folder / "answers"
        schema.write_text(json.dumps(document))
        env |= {"FUZZED_REGISTRY": process.url, "FUZZED_MEMBER": addr, "FUZZED_ANSWERS": str(answers)}
        command = [
            pathlib.Path(sys.executable).with_name("schemathesis"),
            *("run", schema, "--url", process.url, "--no-color", "--checks", "all", "--continue-on-failure"),
            *("--generation-deterministic", "--max-examples", str(EXAMPLES), "--request-timeout", "10"),
            *("--warnings", "off"),
            *(part for path in ENDLESS for part in ("--exclude-path", path)),
            *shown,
        ]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("SCHEMATHESIS_")}
        ran = subprocess.run(command, cwd=folder, env=inherited | env, capture_output=True, text=True, timeout=240)
        assert ran.returncode == 0, ran.stdout[-20000:] + ran.stderr[-2000:]
        assert process.child.poll() is None, process.output()[-2000:]
        seen = collections.Counter(answers.read_text().splitlines())
        print(f"    {sum(seen.values())} answers", flush=True)
        missing = [one for one in MUST_OCCUR + (["POST /services 401"] if token else []) if not seen[one]]
        assert not missing, f"never answered: {missing}; {seen}"


def main():
    # When terminated, stop all processes, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return run_all((name[5:], case) for name, case in list(globals().items()) if name.startswith("test_"))


if __name__ == "__main__":
    sys.exit(main())
