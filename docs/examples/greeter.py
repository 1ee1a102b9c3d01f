#!/usr/bin/env python3
"""A Hubspoke member in Python's standard library: answers /greeter/NAME and logs each greeting."""

import json
import os
import random
import signal
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REGISTRY = os.environ.get("HUB_REGISTRY__URL", "http://127.0.0.1:20000")
me = {"Name": "greeter", "RequiredServices": ["log"]}  # and "Addr", once it listens
known = {name: {} for name in me["RequiredServices"]}  # service -> {address: instance}
lock = threading.Lock()
served = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        global served
        if self.path == "/heart-beat":  # from the registry, every 5 s
            self.answer(200, json.dumps({"Status": "serving", "Requests": served, "InFlight": 0}))
        elif self.path.startswith("/greeter/"):
            name = self.path.removeprefix("/greeter/")
            served += 1
            if log(f"greeted {name}"):
                self.answer(200, f"hello, {name}\n")
            else:
                self.answer(503, "no log instance took the entry\n")
        else:
            self.answer(404, "not found\n")

    def do_POST(self):  # push: an instance of a required service was added
        self.push(lambda instances, one: instances.update({one["Addr"]: one}))

    def do_DELETE(self):  # push: an instance of a required service was removed
        self.push(lambda instances, one: instances.pop(one["Addr"], None))

    def push(self, change):
        one = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with lock:
            change(known.setdefault(one["Name"], {}), one)
        self.answer(200, "")

    def answer(self, status, body):
        body = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def call(method, url, body):
    headers = {"Hub-Source": f"{me['Name']}/{me['Addr']}"}  # so that entries name their sender
    request = urllib.request.Request(url, body.encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=5) as reply:
        return reply.read()


def log(text):
    """Sends an entry to a random log instance, or to another one if that fails."""
    with lock:
        instances = list(known["log"])
    random.shuffle(instances)
    for addr in instances:
        try:
            return call("POST", f"http://{addr}/log", text)
        except OSError:
            continue
    return None


def stay_registered(stop):
    """Registers every 5 s: an identical POST changes nothing, and brings the member back if it was lost."""
    while True:
        try:
            lists = json.loads(call("POST", f"{REGISTRY}/services", json.dumps(me)))
            with lock:
                for name, instances in lists.items():
                    known[name] = {one["Addr"]: one for one in instances}
        except OSError as error:
            print(f"can't register at {REGISTRY}: {error}", file=sys.stderr)
        if stop.wait(5):
            return


def main():
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 9000), Handler)
    me["Addr"] = f"127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever).start()  # serve first, then register
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stay_registered(stop)
    call("DELETE", f"{REGISTRY}/services", json.dumps(me))  # answered when dependents know, or after 1 s
    server.shutdown()


if __name__ == "__main__":
    main()
