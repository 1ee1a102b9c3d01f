"""The gateway's port for TLS under sslyze, which checks what testssl.sh and SSL Labs check: protocols and cipher suites,
curves, certificate, resumption, known attacks, and Mozilla's recommendation "intermediate". Anything above a mere
information fails. Then what only openssl can send: renegotiation by hand, compression, fallback."""

import http.server
import json
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.request

from sslyze import (
    CertificateInfoExtraArgument,
    RobotScanResultEnum,
    ScanCommandsExtraArguments,
    ScanCommandAttemptStatusEnum,
    Scanner,
    ServerNetworkConfiguration,
    ServerNetworkLocation,
    ServerScanRequest,
    ServerScanStatusEnum,
    TlsResumptionSupportEnum,
)
from sslyze.mozilla_tls_profile.tls_config_checker import (
    MozillaTlsConfiguration,
    TlsConfigurationEnum,
    check_server_against_tls_configuration,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/bench/gateway"))

from bench import Run, free_port, wait_for  # noqa: E402  (found by the path just set)

HOST = "shop.example"


class Shop(http.server.BaseHTTPRequestHandler):
    """The instance."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def openssl(*arguments, text=b"", timeout=30):
    """Runs openssl. Returns its exit code and all that it printed."""
    done = subprocess.run(["openssl", *arguments], input=text, capture_output=True, timeout=timeout)
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def make_certificates(folder):
    """A CA, and a certificate of 90 days with an ECDSA key, as Let's Encrypt issues them."""
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    signs = ["-addext", "keyUsage=critical,keyCertSign"]
    ca, key, request = folder / "ca.pem", folder / "ca.key", folder / "request.pem"
    leaf = folder / "certs"
    leaf.mkdir()
    for command in (
        ["req", "-x509", *curve, "-days", "3650", "-subj", "/CN=Test CA", *signs, "-keyout", key, "-out", ca],
        ["req", *curve, "-subj", f"/CN={HOST}", "-keyout", leaf / "tls.key", "-out", request],
    ):
        code, output = openssl(*map(str, command))
        assert code == 0, output
    extensions = folder / "extensions"
    extensions.write_text(
        f"subjectAltName=DNS:{HOST}\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n"
        "basicConstraints=critical,CA:FALSE\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    )
    command = ["x509", "-req", "-in", request, "-CA", ca, "-CAkey", key, "-days", "90", "-extfile", extensions]
    code, output = openssl(*map(str, [*command, "-out", leaf / "tls.crt"]))
    assert code == 0, output
    (leaf / "tls.key").chmod(0o600)
    return ca, leaf


def start_platform(run, binaries, certificates):
    """Starts an instance, registry and gateway. Returns the gateway's port for TLS."""
    shop = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    threading.Thread(target=shop.serve_forever, daemon=True).start()
    registry, control, clear, tls = (free_port() for _ in range(4))
    run.start("0-1", [binaries / "registry"], HUB_LISTEN=f"127.0.0.1:{registry}")
    wait_for(f"http://127.0.0.1:{registry}/livez")
    info = {"Name": "shop", "Addr": f"127.0.0.1:{shop.server_address[1]}", "RequiredServices": None}
    urllib.request.urlopen(f"http://127.0.0.1:{registry}/services", json.dumps(info).encode(), timeout=5).read()
    run.start(
        "0-1",
        [binaries / "gateway"],
        HUB_LISTEN=f"127.0.0.1:{clear}",
        HUB_CONTROL_LISTEN=f"127.0.0.1:{control}",
        HUB_REGISTRY__URL=f"http://127.0.0.1:{registry}",
        HUB_GATEWAY__EXPOSE="shop",
        HUB_GATEWAY__SERVICES__SHOP__HOSTS=HOST,
        HUB_GATEWAY__TLS__LISTEN=f"127.0.0.1:{tls}",
        HUB_GATEWAY__TLS__CERTS=str(certificates),
        HUB_GATEWAY__TLS__HSTS="730d",
    )
    wait_for(f"http://127.0.0.1:{control}/readyz")
    return tls


def scan(port, authority):
    scanner = Scanner()
    location = ServerNetworkLocation(hostname=HOST, port=port, ip_address="127.0.0.1")
    network = ServerNetworkConfiguration(tls_server_name_indication=HOST, network_timeout=20)
    ours = ScanCommandsExtraArguments(certificate_info=CertificateInfoExtraArgument(custom_ca_file=authority))
    request = ServerScanRequest(location, network, scan_commands_extra_arguments=ours)
    scanner.queue_scans([request])
    (result,) = scanner.get_results()
    assert result.scan_status == ServerScanStatusEnum.COMPLETED, result.connectivity_error_trace
    return result


# Each check of a scan: a name, and what must hold. `it(NAME)` is the result of one of sslyze's commands.
def protocols(it):
    for name in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
        assert not it(f"{name}_cipher_suites").accepted_cipher_suites, name
    for name in ("tls_1_2", "tls_1_3"):
        assert it(f"{name}_cipher_suites").accepted_cipher_suites, name


def cipher_suites(it):
    accepted = [suite.cipher_suite for suite in it("tls_1_2_cipher_suites").accepted_cipher_suites]
    for suite in accepted:
        # Forward secrecy and authenticated encryption; neither RSA key exchange nor CBC.
        assert suite.name.startswith("TLS_ECDHE_"), suite.name
        assert "_GCM_" in suite.name or "_CHACHA20_POLY1305_" in suite.name, suite.name
        assert suite.key_size >= 128 and not suite.is_anonymous, suite.name


def curves(it):
    weak = {"secp192r1", "secp224r1", "sect163k1", "sect163r2"}
    supported = {curve.name for curve in it("elliptic_curves").supported_curves}
    assert {"secp256r1", "X25519"} <= supported and not supported & weak, supported


def certificate(it):
    (deployment,) = it("certificate_info").certificate_deployments
    assert deployment.received_chain_has_valid_order, "the order of the chain"
    assert not deployment.verified_chain_has_sha1_signature, "a signature with SHA-1"


def known_attacks(it):
    assert not it("tls_compression").supports_compression, "CRIME"
    assert not it("heartbleed").is_vulnerable_to_heartbleed, "Heartbleed"
    assert not it("openssl_ccs_injection").is_vulnerable_to_ccs_injection, "CCS injection"
    assert it("robot").robot_result == RobotScanResultEnum.NOT_VULNERABLE_RSA_NOT_SUPPORTED, "ROBOT"
    assert not it("tls_1_3_early_data").supports_early_data, "early data, which can be replayed"
    assert it("tls_extended_master_secret").supports_ems_extension, "triple handshake"


def renegotiation(it):
    found = it("session_renegotiation")
    assert not found.is_vulnerable_to_client_renegotiation_dos, "a client may renegotiate"
    assert found.supports_secure_renegotiation, "RFC 5746 is not signalled"


def resumption(it):
    # With tickets, sslyze takes a session for a new one if it comes with a new ticket, as it should: see below.
    found = it("session_resumption")
    assert found.session_id_resumption_result == TlsResumptionSupportEnum.FULLY_SUPPORTED, found


def http_headers(it):
    policy = it("http_headers").strict_transport_security_header
    assert policy.max_age == 730 * 86_400, policy


SCANNED = [
    protocols,
    cipher_suites,
    curves,
    certificate,
    known_attacks,
    renegotiation,
    resumption,
    http_headers,
]


def mozilla(result):
    """Mozilla's "intermediate": raises with the list of differences."""
    wanted = MozillaTlsConfiguration.get(TlsConfigurationEnum.MOZILLA_INTERMEDIATE)
    check_server_against_tls_configuration(result, wanted)


def every_command_has_run(result):
    for name, attempt in vars(result.scan_result).items():
        assert attempt.status == ScanCommandAttemptStatusEnum.COMPLETED, (name, attempt.error_trace)


def client(port, *arguments, text=b"", timeout=30):
    command = ["s_client", "-connect", f"127.0.0.1:{port}", "-servername", HOST, *arguments]
    return openssl(*command, text=text, timeout=timeout)


def old_versions_are_refused(port, _):
    for version in ("-tls1", "-tls1_1"):
        code, output = client(port, version, "-cipher", "ALL:@SECLEVEL=0")
        assert code != 0 and "Cipher is (NONE)" in output and " alert " in output, (version, output)


def renegotiation_by_hand_is_refused(port, _):
    """R on a line renegotiates: the connection goes on without, or ends; it never shakes hands again."""
    code, output = client(port, "-tls1_2", text=b"R\n")
    assert "no renegotiation" in output or "RENEGOTIATING" in output and "handshake failure" in output or code != 0, output


def a_resumed_session_is_as_good(port, _):
    with tempfile.NamedTemporaryFile() as session:
        request = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
        for version in ("-tls1_2", "-tls1_3"):
            _, first = client(port, version, "-ign_eof", "-sess_out", session.name, text=request)
            assert "hello" in first and "New, TLS" in first, first
            _, second = client(port, version, "-ign_eof", "-sess_in", session.name, text=request)
            assert "hello" in second and "Reused, TLS" in second, second


def python_speaks_to_it(port, authority):
    context = ssl.create_default_context(cafile=authority)
    with socket.create_connection(("127.0.0.1", port), 20) as plain:
        with context.wrap_socket(plain, server_hostname=HOST) as stream:
            stream.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: stream.recv(4096), b""))
            assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"hello"), answer
            assert stream.version() == "TLSv1.3", stream.version()


BY_HAND = [
    old_versions_are_refused,
    renegotiation_by_hand_is_refused,
    a_resumed_session_is_as_good,
    python_speaks_to_it,
]


def main():
    binaries = pathlib.Path(sys.argv[1]).resolve()
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="tls-") as directory:
        run = Run(pathlib.Path(directory))
        try:
            authority, certificates = make_certificates(run.dir)
            port = start_platform(run, binaries, certificates)
            result = scan(port, authority)

            def it(name):
                return getattr(result.scan_result, name).result

            checks = [(every_command_has_run, (result,)), (mozilla, (result,))]
            checks += [(check, (it,)) for check in SCANNED] + [(check, (port, authority)) for check in BY_HAND]
            for check, arguments in checks:
                try:
                    check(*arguments)
                    passed += 1
                except Exception as error:  # noqa: BLE001  (each check is reported)
                    failed += 1
                    print(f"FAILED {check.__name__}: {type(error).__name__}: {error}")
        finally:
            run.stop_all()
    print(f"{passed} passed" + (f", {failed} failed" if failed else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
