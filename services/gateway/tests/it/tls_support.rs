//! A certificate authority, clients with TLS, and a gateway that speaks it.

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
use hubspoke_gateway::GatewayConfig;
use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::support::{DEADLINE, FakeInstance, Gateway};

/// A certificate and its key.
pub(crate) type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

pub(crate) struct Authority(pub(crate) CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes a certificate for a name into a folder, as cert-manager does.
    pub(crate) fn issue(&self, folder: &Path, name: &str) {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("tls.crt"), cert.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    }

    /// A client's certificate with these names, and its key.
    pub(crate) fn identity(&self, names: Vec<String>) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.0).unwrap();
        (cert.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    /// A client that trusts this authority.
    pub(crate) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> TlsConnector {
        self.client_as(versions, alpn, None)
    }

    /// The same with a certificate of its own.
    pub(crate) fn client_as(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&[u8]],
        identity: Option<Identity>,
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => builder.with_client_auth_cert(vec![cert], key).unwrap(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

/// Notes what was received, still encrypted.
pub(crate) struct Tap {
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

pub(crate) struct Client {
    pub(crate) stream: TlsStream<Tap>,
    pub(crate) received: Arc<Mutex<Vec<u8>>>,
}

impl Client {
    pub(crate) async fn connect(gateway: &Gateway, connector: &TlsConnector, name: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(gateway.tls.unwrap()).await?;
        let received = Arc::<Mutex<Vec<u8>>>::default();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = connector.connect(name, Tap { stream, received: received.clone() }).await?;
        Ok(Self { stream, received })
    }

    /// Sends a request; returns the response with its body, which has a length.
    pub(crate) async fn send(&mut self, request: &str) -> String {
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

pub(crate) struct TlsGateway {
    pub(crate) gateway: Gateway,
    pub(crate) authority: Authority,
    pub(crate) folder: tempfile::TempDir,
    _instance: FakeInstance,
}

impl TlsGateway {
    pub(crate) async fn start(names: &[&str]) -> Self {
        Self::start_with(names, |_, _| ()).await
    }

    /// `change` adjusts the configuration; it gets the authority, too.
    pub(crate) async fn start_with(
        names: &[&str],
        change: impl FnOnce(&mut GatewayConfig, &Authority),
    ) -> Self {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
        let folders: Vec<PathBuf> = names.iter().map(|name| folder.path().join(name)).collect();
        folders.iter().zip(names).for_each(|(folder, name)| authority.issue(folder, name));
        let proto =
            |headers: HeaderMap| async move { headers["x-forwarded-proto"].to_str().unwrap().to_owned() };
        let routes = Router::new()
            .route("/shop", get(proto))
            .route("/shop/headers", get(|headers: HeaderMap| async move { format!("{headers:?}") }))
            .route("/shop/echo", post(async |body: Bytes| body));
        let instance = FakeInstance::serve(routes).await;
        let gateway = Gateway::start(|config| {
            config.tls.listen = Some("127.0.0.1:0".parse().unwrap());
            config.tls.certs = folders;
            config.timeouts.request_header = Duration::from_secs(2);
            change(config, &authority);
        });
        let gateway = gateway.await;
        gateway.set("shop", &[instance.info("shop")]).await;
        Self { gateway, authority, folder, _instance: instance }
    }

    pub(crate) async fn connect(&self, connector: &TlsConnector, name: &str) -> Client {
        Client::connect(&self.gateway, connector, name).await.unwrap()
    }
}

pub(crate) const GET: &str = "GET /shop HTTP/1.1\r\nHost: a.example\r\n\r\n";
pub(crate) const BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
