"""A gRPC server and clients as they come from PyPI, through the gateway. The client names the service in its authority,
and neither side knows of a prefix: generated stubs, all four kinds of calls, metadata, deadlines, cancellation and
reflection (as grpcurl uses it)."""

import http.server
import json
import pathlib
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent import futures

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/bench/gateway"))

from bench import Run, free_port, wait_for  # noqa: E402  (found by the path just set)

cancelled = threading.Event()


def shout(request, context):
    metadata = dict(context.invocation_metadata())
    context.set_trailing_metadata((("seen", metadata.get("x-own", "")), ("asked", metadata.get("x-forwarded-host", ""))))
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not like this")
    if request == b"slow":
        time.sleep(5)
    return request.upper()


def count(request, context):
    for n in range(int(request)):
        yield b"%d" % n


def join(requests, context):
    return b",".join(requests)


def echo(requests, context):
    context.add_callback(cancelled.set)
    for request in requests:
        yield request


HANDLERS = {
    "Shout": grpc.unary_unary_rpc_method_handler(shout),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Join": grpc.stream_unary_rpc_method_handler(join),
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
}


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Text", HANDLERS),))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    servicer.set("test.Text", health_pb2.HealthCheckResponse.SERVING)
    names = (health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


class Heartbeats(http.server.BaseHTTPRequestHandler):
    """The member's control address: a gRPC server answers no GET."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def start_platform(run, binaries, port):
    """Starts registry and gateway, and registers the server. Returns the gateway's port."""
    registry, control, public = free_port(), free_port(), free_port()
    heartbeats = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Heartbeats)
    threading.Thread(target=heartbeats.serve_forever, daemon=True).start()
    run.start("0-1", [binaries / "registry"], HUB_LISTEN=f"127.0.0.1:{registry}")
    wait_for(f"http://127.0.0.1:{registry}/livez")
    info = {
        "Name": "text",
        "Addr": f"127.0.0.1:{port}",
        "ControlAddr": f"127.0.0.1:{heartbeats.server_address[1]}",
        "Meta": {"protocol": "h2c"},
    }
    urllib.request.urlopen(f"http://127.0.0.1:{registry}/services", json.dumps(info).encode(), timeout=5).read()
    run.start(
        "0-1",
        [binaries / "gateway"],
        HUB_LISTEN=f"127.0.0.1:{public}",
        HUB_CONTROL_LISTEN=f"127.0.0.1:{control}",
        HUB_REGISTRY__URL=f"http://127.0.0.1:{registry}",
        HUB_GATEWAY__EXPOSE="text",
    )
    wait_for(f"http://127.0.0.1:{control}/readyz")
    return public


def generated_stub(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    reply = stub.Check(health_pb2.HealthCheckRequest(service="test.Text"), timeout=5)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="test.Text"))
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def unary(channel):
    reply, call = channel.unary_unary("/test.Text/Shout").with_call(b"hello", timeout=5, metadata=(("x-own", "1"),))
    trailers = dict(call.trailing_metadata())
    assert (reply, trailers["seen"]) == (b"HELLO", "1"), (reply, trailers)
    assert trailers["asked"].startswith("text.localhost:"), trailers


def status(channel):
    try:
        channel.unary_unary("/test.Text/Shout")(b"fail", timeout=5)
        raise AssertionError("it did not fail")
    except grpc.RpcError as error:
        assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not like this"), error


def deadline(channel):
    try:
        channel.unary_unary("/test.Text/Shout")(b"slow", timeout=0.3)
        raise AssertionError("it did not time out")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error


def server_stream(channel):
    assert list(channel.unary_stream("/test.Text/Count")(b"1000", timeout=10)) == [b"%d" % n for n in range(1000)]


def client_stream(channel):
    parts = [b"x" * 10_000] * 100
    assert channel.stream_unary("/test.Text/Join")(iter(parts), timeout=10) == b",".join(parts)


def both_streams(channel):
    """Each message waits for the answer to the one before."""
    answered = threading.Semaphore(1)

    def messages():
        for n in range(100):
            answered.acquire()
            yield b"%d" % n

    call = channel.stream_stream("/test.Text/Echo")(messages(), timeout=20)
    for n in range(100):
        assert next(call) == b"%d" % n
        answered.release()


def cancellation(channel):
    cancelled.clear()
    over = threading.Event()

    def messages():
        yield b"first"
        over.wait(20)

    call = channel.stream_stream("/test.Text/Echo")(messages())
    assert next(call) == b"first"
    call.cancel()
    assert cancelled.wait(10), "the server did not learn of it"
    over.set()


def reflected(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "grpc.health.v1.Health" in database.get_services()
    pool = descriptor_pool.DescriptorPool(database)
    assert "Check" in pool.FindServiceByName("grpc.health.v1.Health").methods_by_name


CASES = [generated_stub, unary, status, deadline, server_stream, client_stream, both_streams, cancellation, reflected]


def main():
    binaries = pathlib.Path(sys.argv[1]).resolve()
    server, port = serve()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="grpc-") as directory:
        run = Run(pathlib.Path(directory))
        try:
            gateway = start_platform(run, binaries, port)
            authority = (("grpc.default_authority", f"text.localhost:{gateway}"),)
            with grpc.insecure_channel(f"127.0.0.1:{gateway}", options=authority) as channel:
                for case in CASES:
                    try:
                        case(channel)
                        print(f"ok      {case.__name__}", flush=True)
                    except Exception as error:  # whatever it is, the other cases run too
                        failed += 1
                        print(f"FAILED  {case.__name__}: {error!r}", flush=True)
        except SystemExit:
            print((run.dir / "log.txt").read_text(), file=sys.stderr)
            raise
        finally:
            run.stop_all()
            server.stop(0)
    print(f"{len(CASES) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
