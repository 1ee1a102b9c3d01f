//! TLS towards clients.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};

use super::support::{DEADLINE, FakeInstance, Gateway, eventually};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes a certificate for a name into a folder, as cert-manager does.
    fn issue(&self, folder: &Path, name: &str) {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("tls.crt"), cert.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

/// Notes what was received, still encrypted.
struct Tap {
    stream: TcpStream,
    received: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.received.lock().unwrap().extend_from_slice(&buf.filled()[before..]);
        read
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

struct Client {
    stream: TlsStream<Tap>,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Client {
    async fn connect(gateway: &Gateway, connector: &TlsConnector, name: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(gateway.tls.unwrap()).await?;
        let received = Arc::<Mutex<Vec<u8>>>::default();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = connector.connect(name, Tap { stream, received: received.clone() }).await?;
        Ok(Self { stream, received })
    }

    /// Sends a request; returns the response with its body, which has a length.
    async fn send(&mut self, request: &str) -> String {
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        loop {
            let read = tokio::time::timeout(DEADLINE, self.stream.read_buf(&mut response)).await;
            assert_ne!(read.expect("an answer").unwrap(), 0, "{}", String::from_utf8_lossy(&response));
            let text = String::from_utf8_lossy(&response);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.to_ascii_lowercase();
            let length = length.split_once("content-length: ").unwrap().1;
            if body.len() >= length.split("\r\n").next().unwrap().parse().unwrap() {
                return text.into_owned();
            }
        }
    }
}

struct TlsGateway {
    gateway: Gateway,
    authority: Authority,
    folder: tempfile::TempDir,
    _instance: FakeInstance,
}

impl TlsGateway {
    async fn start(names: &[&str]) -> Self {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
        let folders: Vec<PathBuf> = names.iter().map(|name| folder.path().join(name)).collect();
        folders.iter().zip(names).for_each(|(folder, name)| authority.issue(folder, name));
        let proto =
            |headers: HeaderMap| async move { headers["x-forwarded-proto"].to_str().unwrap().to_owned() };
        let routes =
            Router::new().route("/shop", get(proto)).route("/shop/echo", post(async |body: Bytes| body));
        let instance = FakeInstance::serve(routes).await;
        let gateway = Gateway::start(|config| {
            config.tls.listen = Some("127.0.0.1:0".parse().unwrap());
            config.tls.certs = folders;
            config.timeouts.request_header = Duration::from_secs(2);
        });
        let gateway = gateway.await;
        gateway.set("shop", &[instance.info("shop")]).await;
        Self { gateway, authority, folder, _instance: instance }
    }

    async fn connect(&self, connector: &TlsConnector, name: &str) -> Client {
        Client::connect(&self.gateway, connector, name).await.unwrap()
    }
}

const GET: &str = "GET /shop HTTP/1.1\r\nHost: a.example\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn requests_come_over_tls_1_2_and_1_3_with_the_certificate_of_their_name() {
    let it = TlsGateway::start(&["a.example", "b.example"]).await;
    for version in [&TLS12, &TLS13] {
        let connector = it.authority.client(&[version], &[b"http/1.1"]);
        for name in ["a.example", "b.example"] {
            let mut client = it.connect(&connector, name).await; // checks the name
            assert_eq!(client.stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            for _ in 0..3 {
                let response = client.send(GET).await;
                assert!(
                    response.starts_with("HTTP/1.1 200") && response.ends_with("\r\n\r\nhttps"),
                    "{response}"
                );
            }
        }
        // The default certificate is the first one's.
        assert!(Client::connect(&it.gateway, &connector, "unknown.example").await.is_err());
    }
    assert_eq!(it.gateway.get("/shop").await.text().await.unwrap(), "http", "the clear port is beside it");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_any_size_pass_and_the_end_is_announced() {
    let it = TlsGateway::start(&["a.example"]).await;
    let connector = it.authority.client(&[&TLS13], &[]);
    let mut client = it.connect(&connector, "a.example").await;
    for size in [0, 1, 16_384, 100_000, 1_900_000] {
        let body = "x".repeat(size);
        let head = format!("POST /shop/echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: {size}\r\n\r\n");
        let response = client.send(&(head + &body)).await;
        assert!(response.ends_with(&format!("\r\n\r\n{body}")), "{size}");
    }
    let last = "GET /shop HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    client.send(last).await;
    // Without a close_notify this is an error.
    assert_eq!(client.stream.read(&mut [0; 10]).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_and_a_short_body_are_one_record() {
    let it = TlsGateway::start(&["a.example"]).await;
    let mut client = it.connect(&it.authority.client(&[&TLS13], &[]), "a.example").await;
    client.send(GET).await; // and the session tickets
    client.received.lock().unwrap().clear();
    client.send(GET).await;
    let received = client.received.lock().unwrap().clone();
    let length = usize::from(u16::from_be_bytes([received[3], received[4]]));
    assert_eq!((received[0], received.len()), (23, 5 + length), "one record of application data");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_chosen_by_alpn() {
    let it = TlsGateway::start(&["a.example"]).await;
    let connector = it.authority.client(&[&TLS13], &[b"h2", b"http/1.1"]);
    let client = it.connect(&connector, "a.example").await;
    assert_eq!(client.stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut send, connection) = h2::client::handshake(client.stream).await.unwrap();
    tokio::spawn(connection);
    let request = axum::http::Request::get("https://a.example/shop").body(()).unwrap();
    let response = send.send_request(request, true).unwrap().0.await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.into_body().data().await.unwrap().unwrap(), "https");
    // A protocol that the gateway does not speak.
    let connector = it.authority.client(&[&TLS13], &[b"spdy/3"]);
    assert!(Client::connect(&it.gateway, &connector, "a.example").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_while_sessions_resume_and_bad_ones_are_not_used() {
    let it = TlsGateway::start(&["a.example"]).await;
    let connector = it.authority.client(&[&TLS13], &[]);
    let serial = async || {
        let mut client = it.connect(&it.authority.client(&[&TLS13], &[]), "a.example").await;
        client.send(GET).await;
        client.stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = serial().await;
    it.connect(&connector, "a.example").await.send(GET).await;
    it.authority.issue(&it.folder.path().join("a.example"), "a.example");
    eventually("the new certificate is in use", async || serial().await != first).await;
    let mut resumed = it.connect(&connector, "a.example").await;
    resumed.send(GET).await;
    assert_eq!(resumed.stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    let second = serial().await;
    std::fs::write(it.folder.path().join("a.example/tls.crt"), "half").unwrap();
    eventually("the bad one is reported", async || {
        let metrics = it.gateway.get_control("/metrics").await.1;
        let failures = metrics.lines().find(|line| line.starts_with("hub_tls_reload_failures_total"));
        failures.is_some_and(|line| !line.ends_with(" 0"))
    })
    .await;
    assert_eq!(serial().await, second);
    let metrics = it.gateway.get_control("/metrics").await.1;
    let left = metrics.lines().find(|line| line.starts_with("hub_tls_expiry_seconds")).unwrap();
    assert!(left.rsplit(' ').next().unwrap().parse::<f64>().unwrap() > 1e6, "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_and_clear_text_end() {
    let it = TlsGateway::start(&["a.example"]).await;
    let mut silent = TcpStream::connect(it.gateway.tls.unwrap()).await.unwrap();
    silent.write_all(&[22, 3, 1, 2, 0]).await.unwrap(); // a record that never comes
    let mut clear = TcpStream::connect(it.gateway.tls.unwrap()).await.unwrap();
    clear.write_all(GET.as_bytes()).await.unwrap();
    for stream in [&mut clear, &mut silent] {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("it ends");
        assert!(ended.is_err() || !rest.starts_with(b"HTTP"), "{rest:?}");
    }
}
