//! The identity of a process: its certificate, and the authorities that it trusts, for both ends of mutual TLS.
//!
//! A name is a URI in the certificate below a common prefix, the domain: `spiffe://example/shop` has the name `shop` in the
//! domain `spiffe://example/`. Addresses and DNS names play no part. Configurations hold the identity itself, so one that
//! was replaced counts from the next handshake on, in every client and server at once.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, Error, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub use self::loaded::IdentityFiles;
use self::loaded::{IdentityState, LoadedIdentity};
use self::verifiers::{ClientVerifier, OwnCertificate, ServerVerifier};
use crate::cert::CertError;
use crate::socket::TlsSocket;
use crate::watched::{Watched, now, warn_if_public};

mod loaded;
mod verifiers;

/// The most encrypted bytes that wait for the other end.
const MAX_UNSENT: usize = 32 << 10;

/// The identity of a process, read again while it runs.
#[derive(Debug)]
pub struct Identity {
    files: IdentityFiles,
    state: Arc<IdentityState>,
    /// Notified when it is replaced.
    replaced: Notify,
}

impl Identity {
    /// Reads and checks the files: the certificate must be one of a trusted authority, and have a name in `domain`.
    ///
    /// # Errors
    /// [`CertError`] about the first file that can't be used.
    pub fn open(files: IdentityFiles, domain: &'static str) -> Result<Arc<Self>, CertError> {
        let provider = Arc::new(ring::default_provider());
        let current = Watched::open(files.read()?, |content| {
            LoadedIdentity::parse(&files, domain, content, &provider, now())
        })?;
        warn_if_public(&files.own.key);
        let state = Arc::new(IdentityState { domain, provider, current });
        Ok(Arc::new(Self { files, state, replaced: Notify::new() }))
    }

    /// Reads the files again. If their content has changed and can be used, it counts from the next handshake on; otherwise
    /// the last one stays, which is logged once.
    pub fn reload(&self) {
        let Self { files, state, replaced } = self;
        let IdentityState { domain, provider, current } = &**state;
        let parse = |content: &_| LoadedIdentity::parse(files, domain, content, provider, now());
        if current.reload(|| files.read(), parse) {
            tracing::info!(files = 3, "new certificates are in use");
            replaced.notify_waiters();
        }
    }

    /// When the certificate ends, or the last of the authorities, in seconds since 1970.
    pub fn expires(&self) -> i64 {
        self.state.current.get().not_after
    }

    /// How many times the files could not be used, since the start.
    pub fn reload_failures(&self) -> u64 {
        self.state.current.failures()
    }

    /// The generation of what is in use now, which ends when that is replaced.
    pub fn generation(self: &Arc<Self>) -> Generation {
        Generation { number: self.state.current.generation(), identity: self.clone() }
    }

    /// The process's own names.
    pub fn names(&self) -> Vec<String> {
        self.state.current.get().names.clone()
    }

    /// A server's configuration: TLS 1.2 and 1.3, clients with a certificate only, no resumption, which would skip the
    /// check of the certificate.
    ///
    /// # Errors
    /// [`Error`] if the provider lacks a protocol version.
    pub fn server_config(self: &Arc<Self>, alpn: &[&[u8]]) -> Result<ServerConfig, Error> {
        let builder = ServerConfig::builder_with_provider(self.state.provider.clone());
        let builder = builder.with_safe_default_protocol_versions()?;
        let verifier = Arc::new(ClientVerifier(self.state.clone()));
        let mut config = builder
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(OwnCertificate(self.state.clone())));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// A client's configuration: TLS 1.2 and 1.3, this certificate, and a server that has one of these names.
    ///
    /// # Errors
    /// [`Error`] if the provider lacks a protocol version.
    pub fn client_config(self: &Arc<Self>, names: &[&str], alpn: &[&[u8]]) -> Result<ClientConfig, Error> {
        let builder = ClientConfig::builder_with_provider(self.state.provider.clone());
        let builder = builder.with_safe_default_protocol_versions()?;
        let expected = names.iter().map(|name| (*name).to_owned()).collect();
        let verifier = Arc::new(ServerVerifier { state: self.state.clone(), expected });
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(OwnCertificate(self.state.clone())));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }

    /// Completes a handshake as the client, with a server that has one of these names.
    ///
    /// # Errors
    /// If the other end has another name, is not trusted, or does not speak TLS.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        self: &Arc<Self>,
        names: &[&str],
        alpn: &[&[u8]],
        stream: S,
    ) -> io::Result<TlsSocket<S>> {
        let config = self.client_config(names, alpn).map_err(io::Error::other)?;
        // The verifier looks at names in the certificate only.
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([127, 0, 0, 1])));
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.get_mut().1.set_buffer_limit(Some(MAX_UNSENT));
        Ok(TlsSocket::new(stream))
    }

    /// Completes a handshake as the server; returns the socket and the client's names.
    ///
    /// # Errors
    /// If the client has no certificate, is not trusted, or does not speak TLS.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        config: Arc<ServerConfig>,
        stream: S,
    ) -> io::Result<(TlsSocket<S>, Vec<String>)> {
        let mut stream = TlsAcceptor::from(config).accept(stream).await?;
        let connection = stream.get_mut().1;
        connection.set_buffer_limit(Some(MAX_UNSENT));
        let certificate = connection.peer_certificates().and_then(|chain| chain.first());
        let names = certificate.map(|der| self.state.names_in(der)).unwrap_or_default();
        Ok((TlsSocket::new(stream), names))
    }
}

/// What was in use when a connection was opened. A connection of an earlier generation should not be used for long.
#[derive(Debug, Clone)]
pub struct Generation {
    identity: Arc<Identity>,
    number: u64,
}

impl Generation {
    /// Whether it is still in use.
    pub fn is_current(&self) -> bool {
        self.identity.state.current.generation() == self.number
    }

    /// Completes when it is not in use any more.
    pub async fn ended(&self) {
        loop {
            let replaced = self.identity.replaced.notified();
            if !self.is_current() {
                return;
            }
            replaced.await;
        }
    }
}

#[cfg(test)]
mod tests;
