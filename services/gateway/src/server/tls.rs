//! TLS towards clients: the listener, the handshake, and the certificates that are read again while it runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use hubspoke_acme::{Renewer, TLS_ALPN};
use hubspoke_chassis::BindError;
use hubspoke_chassis::config::ConfigError;
use hubspoke_chassis::tls::show_certificates;
use hubspoke_tls::{CertFiles, CertStore, ClientCa, IssueCert, TlsSocket, server_config};
use opentelemetry::metrics::Meter;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::config::{AcmeChallenge, ClientAuth, GatewayConfig, TlsConfig};
use crate::https::{self, Https};

/// How often the files are read again.
pub(super) const RELOAD: Duration = Duration::from_secs(5);
/// By ALPN, best first. What a client really speaks is told from its first bytes, as in clear text.
const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", TLS_ALPN];

/// The port for TLS, bound.
pub(super) struct TlsPort {
    pub(super) listener: TcpListener,
    pub(super) addr: SocketAddr,
    pub(super) handshakes: Handshakes,
    /// `None` if no certificates come from an ACME server.
    pub(super) renewer: Option<Arc<Renewer>>,
}

/// Takes handshakes. Clones share the certificates.
#[derive(Clone)]
pub(super) struct Handshakes {
    acceptor: TlsAcceptor,
    store: Arc<CertStore>,
}

impl TlsPort {
    /// Reads the certificates and binds the port, if TLS is on.
    pub(super) async fn bind(
        gateway: &GatewayConfig,
        meter: &Meter,
        program: &'static str,
    ) -> Result<Option<Self>, BindError> {
        let config = &gateway.tls;
        let invalid = |why: String| BindError::Config(ConfigError::new(format!("gateway.tls: {why}")));
        if config.acme.is_on() && (config.listen.is_none() || gateway.data_dir.is_none()) {
            let missing = if config.listen.is_none() { "listen" } else { "gateway.data_dir" };
            return Err(invalid(format!("acme.hosts is set, and {missing} is not")));
        }
        let Some(listen) = config.listen else { return Ok(None) };
        if config.certs.is_empty() && !config.acme.is_on() {
            return Err(invalid("certs is empty, and listen is set".to_owned()));
        }
        let client_ca = config.client_ca.as_ref();
        let client_ca = client_ca.map(|file| ClientCa {
            file: file.clone(),
            required: config.client_auth == ClientAuth::Required,
        });
        let mut files: Vec<_> = config.certs.iter().map(|folder| CertFiles::in_folder(folder)).collect();
        let acme = gateway.data_dir.as_deref().filter(|_| config.acme.is_on());
        files.extend(acme.into_iter().flat_map(|data_dir| hubspoke_acme::cert_files(&config.acme, data_dir)));
        let store = Arc::new(CertStore::open(files, client_ca).map_err(|error| invalid(error.to_string()))?);
        let renewer =
            acme.map(|data_dir| Renewer::new(config.acme.clone(), data_dir, store.clone())).transpose();
        let renewer = renewer.map_err(|error| invalid(format!("acme: {error}")))?.map(Arc::new);
        let by_tls = acme.is_some() && config.acme.challenge == AcmeChallenge::TlsAlpn01;
        let protocols = PROTOCOLS.get(..if by_tls { 3 } else { 2 }).unwrap_or_default();
        let tls = server_config(store.clone(), protocols).map_err(|error| invalid(error.to_string()))?;
        show(meter, &store, renewer.as_ref());
        let failed = |error| BindError::Listen { addr: listen, key: "gateway.tls.listen", program, error };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let handshakes = Handshakes { acceptor, store };
        Ok(Some(Self { listener, addr, handshakes, renewer }))
    }
}

impl TlsPort {
    /// What TLS means for requests.
    pub(super) fn https(&self, config: &TlsConfig) -> Https {
        let acme = self.renewer.as_ref().map(|renewer| renewer.answers());
        Https::new(config, self.addr.port(), self.handshakes.store.clone(), acme)
    }

    /// Lets certificates be made for hosts that no file has one for.
    pub(super) fn issue_with(&self, issue: IssueCert) {
        self.handshakes.store.issue_with(issue);
    }
}

impl Handshakes {
    /// The socket after the handshake, and `Client-Cert`; `None` if the handshake fails.
    pub(super) async fn shake(
        &self,
        stream: TcpStream,
    ) -> Option<(TlsSocket<TcpStream>, Option<HeaderValue>)> {
        match self.acceptor.accept(stream).await {
            Ok(mut stream) => {
                let tls = &mut stream.get_mut().1;
                if tls.alpn_protocol() == Some(TLS_ALPN) {
                    return None; // an ACME server has seen what it wanted to see
                }
                tls.set_buffer_limit(Some(MAX_UNSENT));
                let cert = tls.peer_certificates().and_then(|chain| chain.first());
                let value = cert.map(|cert| https::client_cert_value(cert));
                if let Some(None) = value {
                    tracing::debug!("a client's certificate is longer than 6000 bytes");
                    return None;
                }
                Some((TlsSocket::new(stream), value.flatten()))
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a TLS handshake failed");
                None
            }
        }
    }

    /// Reads the certificates again, on a thread that may wait for the disk.
    pub(super) fn reload(&self) -> JoinHandle<()> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.reload())
    }
}

/// The most encrypted bytes that wait for one client.
const MAX_UNSENT: usize = 32 << 10;

fn show(meter: &Meter, store: &Arc<CertStore>, renewer: Option<&Arc<Renewer>>) {
    let (expires, failures) = (store.clone(), store.clone());
    show_certificates(meter, "public", move || expires.expires(), move || failures.reload_failures());
    if let Some(renewer) = renewer.cloned() {
        meter
            .u64_observable_counter("hub.tls.acme.failures")
            .with_unit("{order}")
            .with_description("Orders of certificates from an ACME server that failed")
            .with_callback(move |failures| failures.observe(renewer.failures(), &[]))
            .build();
    }
}
