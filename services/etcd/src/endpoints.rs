//! Which endpoint is in use. One is, until it fails; then the next is.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use rand::RngExt;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::config::{Config, InvalidConfig};
use crate::connection::Connection;
use crate::error::Cause;

/// For connections that somebody between here and there forgets while they are idle.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(crate) struct Endpoints {
    config: Config,
    uris: Vec<Uri>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The endpoint in use, or to be tried next.
    index: usize,
    generation: u64,
    connection: Option<Connection>,
}

impl Endpoints {
    /// Begins with a random one, so that many clients use all of them.
    pub(crate) fn new(config: Config) -> Result<Self, InvalidConfig> {
        config.check_in_use()?;
        let uris = config.uris()?;
        let index = rand::rng().random_range(0..uris.len());
        Ok(Self { config, uris, state: Mutex::new(State { index, generation: 0, connection: None }) })
    }

    /// The number of endpoints.
    pub(crate) fn len(&self) -> usize {
        self.uris.len()
    }

    /// The connection in use, or a new one to the first endpoint that takes one; each is tried once.
    pub(crate) async fn connection(&self) -> Result<Connection, Cause> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok(connection.clone());
        }
        let mut result = Err(Cause::new("etcd", "no endpoint"));
        for _ in 0..self.uris.len() {
            state.generation += 1;
            result = self.connect(&self.uris[state.index], state.generation).await;
            if let Ok(connection) = &result {
                state.connection = Some(connection.clone());
                break;
            }
            state.index = (state.index + 1) % self.uris.len();
        }
        result
    }

    /// Moves on to the next endpoint, unless that has happened since the connection was made.
    pub(crate) async fn failed(&self, connection: &Connection) {
        let mut state = self.state.lock().await;
        if state.connection.as_ref().is_some_and(|current| current.generation == connection.generation) {
            state.connection = None;
            state.index = (state.index + 1) % self.uris.len();
        }
    }

    /// The URL of the endpoint that is connected.
    pub(crate) fn connected(&self) -> Option<Arc<str>> {
        let state = self.state.try_lock().ok()?;
        state.connection.as_ref().map(|connection| connection.endpoint.clone())
    }

    async fn connect(&self, uri: &Uri, generation: u64) -> Result<Connection, Cause> {
        let limit = self.config.connect_timeout;
        let name: Arc<str> = uri.to_string().trim_end_matches('/').into();
        let failed = |error: &tonic::transport::Error| Cause::of(&name, error);
        let mut endpoint = Endpoint::from(uri.clone())
            .connect_timeout(limit)
            .tcp_keepalive(Some(TCP_KEEPALIVE))
            .tcp_nodelay(true);
        if uri.scheme() == Some(&Scheme::HTTPS) {
            let tls = self.tls().await.map_err(|(file, error)| {
                Cause::new(&name, format_args!("can't read {}: {error}", file.display()))
            })?;
            endpoint = endpoint.tls_config(tls).map_err(|error| failed(&error))?;
        }
        // The endpoint's own limit covers the TCP connect only.
        match timeout(limit, endpoint.connect()).await {
            Ok(Ok(channel)) => Ok(Connection { channel, endpoint: name, generation }),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(Cause::new(name, format_args!("no connection within {limit:?}"))),
        }
    }

    /// Reads the files, so that renewed certificates are used.
    async fn tls(&self) -> Result<ClientTlsConfig, (PathBuf, io::Error)> {
        let read = async |file: &PathBuf| tokio::fs::read(file).await.map_err(|error| (file.clone(), error));
        let mut tls = ClientTlsConfig::new();
        if let Some(ca) = &self.config.ca {
            tls = tls.ca_certificate(Certificate::from_pem(read(ca).await?));
        }
        if let (Some(cert), Some(key)) = (&self.config.cert, &self.config.key) {
            tls = tls.identity(Identity::from_pem(read(cert).await?, read(key).await?));
        }
        Ok(tls)
    }
}
