//! Exporting over TLS and over gRPC.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hubspoke_testkit::eventually;
use hubspoke_testkit::otlp::Collector;
use hubspoke_testkit::process::Exit;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::greeter::{Greeter, Platform, run};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";

/// An authority with the files of a certificate for 127.0.0.1.
struct Authority {
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &issuer).unwrap();
        for (name, text) in
            [("ca.crt", issuer.pem()), ("tls.crt", cert.pem()), ("tls.key", key.serialize_pem())]
        {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self { folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }
}

fn cert(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

/// TLS in front of a server, for clients with a certificate of the authority if `asks`. Ends when it is dropped.
struct TlsFront {
    url: String,
    _task: JoinSet<()>,
}

impl TlsFront {
    async fn start(authority: &Authority, to: String, asks: bool, alpn: &[u8]) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(cert(&authority.file("ca.crt"))).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_file(authority.file("tls.key")).unwrap();
        let mut config = builder.with_single_cert(vec![cert(&authority.file("tls.crt"))], key).unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (acceptor, to) = (acceptor.clone(), to.clone());
                connections.spawn(async move {
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let mut server = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { url, _task: task }
    }
}

fn addr(url: &str) -> String {
    url.trim_start_matches("http://").to_owned()
}

async fn greet(greeter: &Greeter) {
    let reply = reqwest::get(format!("{}/greeter/ada", greeter.url)).await.unwrap();
    assert_eq!(reply.text().await.unwrap(), "hello, ada\n");
}

#[tokio::test]
async fn everything_is_exported_over_https_with_a_certificate_of_its_own() {
    let (collector, platform) = (Collector::start().await, Platform::start().await);
    let authority = Authority::new();
    let front = TlsFront::start(&authority, addr(&collector.url()), true, b"http/1.1").await;
    let (ca, cert, key) = (authority.text("ca.crt"), authority.text("tls.crt"), authority.text("tls.key"));
    let vars = [
        (ENDPOINT, front.url.as_str()),
        (CERTIFICATE, &ca),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &cert),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &key),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x"),
    ];
    let greeter = Greeter::start(&platform, &vars).await;
    greet(&greeter).await;
    let Exit { code, stderr, .. } = greeter.terminate().await;
    assert_eq!(code, Some(0), "{stderr}");
    let received = collector.received();
    assert!(
        !received.spans.is_empty() && !received.logs.is_empty() && !received.points.is_empty(),
        "{stderr}"
    );
    assert!(received.requests.iter().all(|headers| headers["authorization"] == "Bearer x"));
}

#[tokio::test]
async fn a_collector_that_is_not_trusted_gets_nothing_and_the_reason_is_logged() {
    let (collector, platform) = (Collector::start().await, Platform::start().await);
    let (authority, other) = (Authority::new(), Authority::new());
    let front = TlsFront::start(&authority, addr(&collector.url()), false, b"http/1.1").await;
    let ca = other.text("ca.crt");
    let greeter = Greeter::start(&platform, &[(ENDPOINT, front.url.as_str()), (CERTIFICATE, &ca)]).await;
    greet(&greeter).await;
    let Exit { code, stderr, .. } = greeter.terminate().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(collector.received().paths.is_empty());
    assert!(
        stderr.contains("can't export telemetry") && stderr.contains("invalid peer certificate"),
        "{stderr}"
    );
}

#[tokio::test]
async fn files_that_cant_be_used_are_refused_at_the_start() {
    let authority = Authority::new();
    let (ca, cert, empty) = (authority.text("ca.crt"), authority.text("tls.crt"), authority.text("empty"));
    std::fs::write(&empty, "").unwrap();
    let https = (ENDPOINT, "https://127.0.0.1:4318");
    for (vars, why) in [
        (vec![https, (CERTIFICATE, "/no/such/file")], "/no/such/file: "),
        (vec![https, (CERTIFICATE, &empty)], "no certificate in PEM"),
        (
            vec![https, (CERTIFICATE, &ca), ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &cert)],
            "set both or none",
        ),
    ] {
        let Exit { code, stderr, .. } = run(&[], &vars).await;
        assert_eq!(code, Some(78), "{stderr}");
        assert!(stderr.starts_with(&format!("greeter: configuration: {ENDPOINT}: ")), "{stderr}");
        assert!(stderr.contains(why) && stderr.lines().count() == 1, "{stderr}");
    }
}

/// What a collector has received over gRPC.
#[derive(Debug, Default)]
struct Received {
    paths: Vec<String>,
    headers: Vec<HeaderMap>,
    spans: Vec<String>,
}

/// A collector for gRPC, which refuses calls without a token.
struct GrpcCollector {
    addr: String,
    received: Arc<Mutex<Received>>,
    _task: JoinSet<()>,
}

impl GrpcCollector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let received = Arc::<Mutex<Received>>::default();
        let mut task = JoinSet::new();
        let shared = received.clone();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = shared.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| export(shared.clone(), request));
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { addr, received, _task: task }
    }
}

type Frames = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn export(
    received: Arc<Mutex<Received>>,
    request: Request<Incoming>,
) -> Result<Response<Frames>, Infallible> {
    let (head, body) = request.into_parts();
    assert_eq!(
        (&head.headers["content-type"], &head.headers["te"]),
        (&HeaderValue::from_static("application/grpc"), &HeaderValue::from_static("trailers"),)
    );
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize, body.len() - 5);
    let mut message = body.slice(5..);
    if body[0] == 1 {
        assert_eq!(head.headers["grpc-encoding"], "gzip");
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&message[..]), &mut plain).unwrap();
        message = plain.into();
    }
    let mut trailers = HeaderMap::new();
    let mut frames = Vec::new();
    if head.headers.contains_key("authorization") {
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        frames.push(Ok(Frame::data(Bytes::from_static(&[0; 5]))));
    } else {
        trailers.insert("grpc-status", HeaderValue::from_static("16"));
        trailers.insert("grpc-message", HeaderValue::from_static("no%20token"));
    }
    frames.push(Ok(Frame::trailers(trailers)));
    let mut received = received.lock().unwrap();
    if head.uri.path().contains(".trace.") {
        let request = ExportTraceServiceRequest::decode(message).unwrap();
        let spans = request.resource_spans.into_iter().flat_map(|group| group.scope_spans);
        received.spans.extend(spans.flat_map(|scope| scope.spans).map(|span| span.name));
    }
    received.paths.push(head.uri.path().to_owned());
    received.headers.push(head.headers);
    let mut response = Response::new(StreamBody::new(stream::iter(frames)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

#[tokio::test]
async fn all_signals_are_exported_over_grpc_in_clear_text_and_with_tls() {
    let platform = Platform::start().await;
    for with_tls in [false, true] {
        let (collector, authority) = (GrpcCollector::start().await, Authority::new());
        let front = TlsFront::start(&authority, collector.addr.clone(), false, b"h2").await;
        let url = if with_tls { front.url.clone() } else { format!("http://{}", collector.addr) };
        let ca = authority.text("ca.crt");
        let vars = [
            (ENDPOINT, url.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", if with_tls { "gzip" } else { "none" }),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x"),
            (CERTIFICATE, &ca),
        ];
        let greeter = Greeter::start(&platform, &vars).await;
        greet(&greeter).await;
        let Exit { code, stderr, .. } = greeter.terminate().await;
        assert_eq!(code, Some(0), "{stderr}");
        assert!(!stderr.contains("can't export"), "{stderr}");
        let received = collector.received.lock().unwrap();
        for signal in ["trace.v1.Trace", "metrics.v1.Metrics", "logs.v1.Logs"] {
            let path = format!("/opentelemetry.proto.collector.{signal}Service/Export");
            assert!(received.paths.contains(&path), "{:?}", received.paths);
        }
        assert!(received.spans.iter().any(|name| name == "GET /greeter/{name}"), "{:?}", received.spans);
    }
}

#[tokio::test]
async fn a_refusal_over_grpc_is_logged_with_its_reason() {
    let (collector, platform) = (GrpcCollector::start().await, Platform::start().await);
    let url = format!("http://{}", collector.addr);
    let vars = [
        (ENDPOINT, url.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ];
    let greeter = Greeter::start(&platform, &vars).await;
    greet(&greeter).await;
    eventually("a refused call", async || !collector.received.lock().unwrap().paths.is_empty()).await;
    let Exit { code, stderr, .. } = greeter.terminate().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("the collector answered with gRPC status 16: no token"), "{stderr}");
}
