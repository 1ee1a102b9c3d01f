"""A member with Flask: answers /hello-flask/NAME. Needs `pip install flask`."""

import json
import os
import signal
import sys
import threading
import urllib.request

from flask import Flask
from werkzeug.serving import make_server

REGISTRY = os.environ.get("HUB_REGISTRY__URL", "http://127.0.0.1:20000")
app = Flask(__name__)


@app.get("/heart-beat")  # from the registry, every 5 s
def heart_beat():
    return ""


@app.get("/hello-flask/<name>")
def hello(name):
    return f"hello, {name}\n"


def call(method, me):
    body, headers = json.dumps(me).encode(), {"Prefer": "wait=1"}  # answered when the gateway knows
    request = urllib.request.Request(f"{REGISTRY}/services", body, headers, method=method)
    try:
        urllib.request.urlopen(request, timeout=5).close()
    except OSError as error:
        detail = error.read().decode() if hasattr(error, "read") else error
        print(f"{method} {REGISTRY}/services: {detail}", file=sys.stderr)


def main():
    server = make_server("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 9000, app, threaded=True)
    threading.Thread(target=server.serve_forever).start()  # serve first, then register
    me = {"Name": "hello-flask", "Addr": f"127.0.0.1:{server.server_port}"}
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    call("POST", me)
    while not stop.wait(5):  # again and again: it costs nothing, and brings the member back if it was lost
        call("POST", me)
    call("DELETE", me)  # then no new requests come
    server.shutdown()


if __name__ == "__main__":
    main()
