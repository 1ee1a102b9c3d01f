"""WebSockets by host and below a prefix that is stripped."""

import contextlib
import socket

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from .platform import eventually


def test_websockets(bench):
    with bench.run("WebSockets", "echo") as platform:
        for host, path in (("127.0.0.1", "/echo/chat?x=1"), ("echo.localhost", "/chat?x=1")):
            with opened(platform, host, path) as connection:
                assert connection.recv(10) == "/chat?x=1"
                for message in ("hello", b"\x00\x01", "x" * 500_000):
                    connection.send(message)
                    assert connection.recv(10) == message


def test_websockets_of_an_asgi_program(bench):
    with bench.run("FastAPI, any ASGI", "asgi") as platform:
        for host, path in (("127.0.0.1", "/asgi/upper"), ("asgi.localhost", "/upper")):
            with opened(platform, host, path) as connection:
                assert connection.recv(10) == "/upper"
                connection.send("hello")
                assert connection.recv(10) == "HELLO"


@contextlib.contextmanager
def opened(platform, host, path):
    """A connection through the gateway, once that knows the service. Not every resolver knows names below localhost."""

    def attempt():
        with contextlib.suppress(InvalidStatus):
            plain = socket.create_connection(("127.0.0.1", int(platform.port)))
            return connect(f"ws://{host}:{platform.port}{path}", sock=plain)

    with eventually(f"{path} of {host} is a WebSocket", attempt) as connection:
        yield connection
