//! The service from bind to shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hubspoke_chassis::{BindError, Config, RunError, Service};
use hubspoke_client::log::BATCH_META;
use hubspoke_protocol::ServiceInfo;
use tokio::sync::{Semaphore, watch};

use crate::api::{self, App, Bodies};
use crate::config::{LogConfig, bytes};
use crate::ingest::Bounds;
use crate::metrics;
use crate::store::{OpenError, Store};

/// How long a peer may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the service can't start, or ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It can't listen or take part.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The log file can't be used.
    #[error("the log file can't be used")]
    Open(#[from] OpenError),
    /// The client for its peers can't be made.
    #[error("can't make an HTTP client")]
    Client(#[from] reqwest::Error),
    /// The server ended by itself.
    #[error(transparent)]
    Run(#[from] RunError),
    /// One of its tasks died.
    #[error("a task of the service died")]
    Task(#[from] tokio::task::JoinError),
    /// The thread that writes has ended by itself.
    #[error("the writer of the log file died")]
    Writer,
}

/// A bound log service.
pub struct Server {
    service: Service,
    app: App,
    close: watch::Sender<bool>,
}

impl Server {
    /// Binds the addresses and opens the file.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn bind(config: Config<LogConfig>) -> Result<Self, ServerError> {
        let Config { common, own } = config;
        let (key, value) = BATCH_META;
        let info = ServiceInfo {
            // Its peers, for one stream over all of them.
            required_services: vec![common.name.clone()],
            meta: [(key.to_owned(), value.to_owned())].into(),
            ..ServiceInfo::default()
        };
        let service = Service::bind_with(&common, info).await?;
        let id = service.id().to_owned();
        // A peer that can't be reached must not hold up those that can.
        let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).build()?;
        let options = own.options();
        let file = options.file.clone();
        let store = tokio::task::spawn_blocking(move || Store::open(options, &id)).await??;
        if store.torn() > 0 {
            tracing::warn!(file = %file.display(), bytes = store.torn(), "an unfinished entry or batch was cut off");
        }
        let store = Arc::new(store);
        metrics::register(&service.metrics().meter(), &store);
        let (close, closing) = watch::channel(false);
        let app = App {
            store,
            name: common.name.into(),
            id: service.id().into(),
            directory: service.directory(),
            http,
            bounds: Bounds { max_entry: bytes(own.max_entry), max_entries: own.max_batch_entries },
            bodies: Bodies::new(bytes(own.max_bodies)),
            max_batch: bytes(own.max_batch),
            max_stall: own.max_stall,
            readers: Arc::new(Semaphore::new(own.max_queries)),
            closing,
        };
        Ok(Self { service, app, close })
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.service.local_addr()
    }

    /// Serves until `shutdown` is done; then finishes what is in flight, writes what waits, and syncs.
    ///
    /// # Errors
    /// [`ServerError`] where it ends before it was asked to.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
        let Self { service, app, close } = self;
        let store = Arc::clone(&app.store);
        let routes = api::routes(app);
        let shutdown = async move {
            shutdown.await;
            close.send_replace(true);
        };
        let result = tokio::select! {
            result = service.run(routes, shutdown) => result.map_err(ServerError::Run),
            () = store.ended() => Err(ServerError::Writer),
        };
        store.close();
        store.ended().await;
        result
    }
}
