//! The service from bind to shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hubspoke_chassis::telemetry::{new_instance_id, new_run_id};
use hubspoke_chassis::{BindError, Config, RunError, Service};
use hubspoke_client::log::BATCH_META;
use hubspoke_client::{HttpClient, HttpClientError, HttpOptions};
use tokio::sync::{Semaphore, watch};

use crate::api;
use crate::api::admission::QueryAdmission;
use crate::api::app::{LONG_EVENTS, LogApp, PARSERS, PATTERN_TAILS, PATTERN_TURNS, READERS};
use crate::api::body::BodyBudget;
use crate::api::sender::GATEWAY_SERVICE;
use crate::config::{LogConfig, PROCESS, bytes};
use crate::ingest::IngestLimits;
use crate::metrics;
use crate::store::{OpenError, Store};

/// Maximum time to connect to a sibling. One that can't be reached must not hold up those that can.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the service can't start, or ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogServerError {
    /// The addresses can't be bound, or the member can't be set up.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The log can't be opened.
    #[error("can't open the log")]
    Open(#[from] OpenError),
    /// The HTTP client for its siblings can't be created.
    #[error(transparent)]
    Client(#[from] HttpClientError),
    /// The server ended by itself.
    #[error(transparent)]
    Run(#[from] RunError),
    /// One of its tasks died.
    #[error("a task of the service panicked")]
    Task(#[from] tokio::task::JoinError),
    /// The writer thread ended by itself.
    #[error("the thread that writes the log file ended unexpectedly")]
    Writer,
}

/// A bound log service.
pub struct LogServer {
    service: Service,
    app: LogApp,
    closing: watch::Sender<bool>,
}

impl LogServer {
    /// Binds the addresses and opens the log.
    ///
    /// # Errors
    /// [`LogServerError`].
    pub async fn bind(config: Config<LogConfig>) -> Result<Self, LogServerError> {
        let Config { common, own } = config;
        let id = new_instance_id(&common.name);
        let options = own.store_options();
        let file = options.file.clone();
        let first = id.clone();
        let store = tokio::task::spawn_blocking(move || Store::open(options, &first)).await??;
        // Its entries keep the id of the first run, so the ids of later ones begin with it.
        let id = if store.instance() == id { id } else { new_run_id(store.instance()) };
        let (key, value) = BATCH_META;
        // It requires its siblings, for `/log/all`, and the gateways, to know whose connections carry others' entries.
        let requires = [&*common.name, GATEWAY_SERVICE];
        let builder = Service::builder(PROCESS).requires(requires).meta(key, value);
        let service = builder.id(id).bind(&common).await?;
        let (identity, options) = (service.identity(), HttpOptions::new(CONNECT_TIMEOUT));
        let http = HttpClient::new(&[&*common.name], identity.as_ref(), options)?;
        if store.torn_bytes() > 0 {
            let (file, torn_bytes) = (file.display(), store.torn_bytes());
            tracing::warn!(%file, torn_bytes, "cut off an incomplete entry or batch at the end of the log");
        }
        let store = Arc::new(store);
        metrics::register(&service.metrics().meter(), &store);
        let (closing, closed) = watch::channel(false);
        let readers = Arc::new(Semaphore::new(READERS));
        let app = LogApp {
            store,
            access: service.access(),
            anonymous_writes: own.anonymous_writes,
            name: common.name.into(),
            id: service.id().into(),
            directory: service.directory(),
            http,
            limits: IngestLimits {
                max_entry: bytes(own.max_entry),
                max_entries: own.max_batch_entries,
                max_encoded: 2 * bytes(own.max_batch),
            },
            bodies: BodyBudget::new(bytes(own.max_bodies)),
            max_batch: bytes(own.max_batch),
            max_stall: own.max_stall,
            queries: QueryAdmission::new(own.max_queries, Arc::clone(&readers)),
            readers,
            max_query_time: own.max_query_time,
            parsers: Arc::new(Semaphore::new(PARSERS)),
            pattern_turns: Arc::new(Semaphore::new(PATTERN_TURNS)),
            pattern_tails: Arc::new(Semaphore::new(PATTERN_TAILS)),
            long_events: Arc::new(Semaphore::new(LONG_EVENTS)),
            closing: closed,
        };
        Ok(Self { service, app, closing })
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.service.local_addr()
    }

    /// Serves until `shutdown` resolves. Then finishes requests in flight, writes what is queued, and syncs.
    ///
    /// # Errors
    /// [`LogServerError`] if it ends by itself.
    pub fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> BoxFuture<'static, Result<(), LogServerError>> {
        self.run_boxed(shutdown.boxed())
    }

    /// Boxed, so that it is compiled here, once and with this package's optimisation, instead of in each caller.
    fn run_boxed(self, shutdown: BoxFuture<'static, ()>) -> BoxFuture<'static, Result<(), LogServerError>> {
        self.run_until(shutdown).boxed()
    }

    async fn run_until(self, shutdown: BoxFuture<'static, ()>) -> Result<(), LogServerError> {
        let Self { service, app, closing } = self;
        let store = Arc::clone(&app.store);
        let routes = api::routes(app);
        let shutdown = async move {
            shutdown.await;
            closing.send_replace(true);
        };
        let result = tokio::select! {
            result = service.run(routes, shutdown) => result.map_err(LogServerError::Run),
            () = store.ended() => Err(LogServerError::Writer),
        };
        store.close();
        store.ended().await;
        result
    }
}
