"""A member with FastAPI: answers /hello-fastapi/NAME. Needs `pip install fastapi uvicorn`."""

import json
import os
import signal
import socket
import sys
import threading
import urllib.request

import uvicorn
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

REGISTRY = os.environ.get("HUB_REGISTRY__URL", "http://127.0.0.1:20000")
app = FastAPI()


@app.get("/heart-beat")  # from the registry, every 5 s
async def heart_beat():
    return {"Status": "serving"}


@app.get("/hello-fastapi/{name}", response_class=PlainTextResponse)
async def hello(name: str):
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
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 9000))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    serving = threading.Thread(target=server.run, args=([listener],))
    serving.start()  # serve first, then register
    me = {"Name": "hello-fastapi", "Addr": "127.0.0.1:%d" % listener.getsockname()[1]}
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    call("POST", me)
    while not stop.wait(5):  # again and again: it costs nothing, and brings the member back if it was lost
        call("POST", me)
    call("DELETE", me)  # then no new requests come
    server.should_exit = True
    serving.join()


if __name__ == "__main__":
    main()
