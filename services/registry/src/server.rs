//! The registry as a server: bound first, then run until shutdown.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use hubspoke_chassis::{BindError, Config, Process, RunError, Service};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::api::{self, Api, MAX_WAITS};
use crate::catalog::EventOutcome;
use crate::config::Settings;
use crate::dispatch::Dispatcher;
use crate::gauges;
use crate::heartbeat::{HeartbeatCommand, Heartbeats};
use crate::page::{self, RelayState};
use crate::persist::SnapshotFile;
use crate::quotas::Quotas;

/// The constants of the registry's process.
pub const PROCESS: Process =
    Process::new("registry", env!("CARGO_PKG_VERSION")).with_listen("127.0.0.1:20000");

/// A bound registry.
pub struct RegistryServer {
    service: Service,
    dispatcher: Arc<Dispatcher>,
    access: Arc<Access>,
    commands: UnboundedReceiver<HeartbeatCommand>,
    settings: Settings,
    file: Option<SnapshotFile>,
}

impl RegistryServer {
    /// Binds the registry's address and restores the catalogue. Nothing is served yet.
    ///
    /// # Errors
    /// [`BindError`] if the address can't be bound or the configuration can't be used.
    pub async fn bind(config: Config<Settings>) -> Result<Self, BindError> {
        let Config { common, own: settings } = config;
        let service = Service::builder(PROCESS).standalone().bind(&common).await?;
        let (dispatcher, commands) = Dispatcher::new(&settings, rand::random(), &service.metrics());
        let dispatcher = Arc::new(dispatcher);
        let access = Arc::new(Access::new(settings.allow_addrs.clone(), settings.limits.clone()));
        let file = settings.data_dir.as_deref().map(SnapshotFile::in_folder);
        if let Some(file) = &file {
            file.restore(&dispatcher, &access);
        }
        gauges::register(&service.metrics(), &settings.limits, &dispatcher);
        Ok(Self { service, dispatcher, access, commands, settings, file })
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.service.local_addr()
    }

    /// Serves until `shutdown` completes.
    ///
    /// # Errors
    /// [`RunError`] if it ends before that.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let Self { service, dispatcher, access, commands, settings, file } = self;
        let catalog = dispatcher.catalog.clone();
        let end_streams = CancellationToken::new();
        let api = Api {
            dispatcher: dispatcher.clone(),
            access,
            rights: service.access(),
            quotas: Quotas::new(&settings.limits),
            deregister_wait: settings.push.deregister_wait,
            is_saved: file.is_some(),
            waits: Semaphore::new(MAX_WAITS),
            max_watchers: settings.limits.watchers,
            shutdown: end_streams.clone(),
        };
        let max_body = usize::try_from(settings.limits.body.as_u64()).unwrap_or(usize::MAX);
        let routes = api::routes(Arc::new(api))
            .merge(page::routes(RelayState::new(catalog.clone(), service.access(), end_streams.clone())))
            .layer(DefaultBodyLimit::max(max_body))
            .layer(from_fn_with_state(catalog.clone(), api::stamp));

        let mut tasks = JoinSet::new();
        let reporter = dispatcher.clone();
        let heartbeats = Heartbeats::new(
            catalog.clone(),
            commands,
            settings.heartbeat,
            dispatcher.instruments.clone(),
            move |event| reporter.apply(event, None).unwrap_or(EventOutcome::Unknown), // results are never refused
        );
        tasks.spawn(heartbeats.run());
        tasks.spawn(dispatcher.notifier.clone().run());
        let feed = dispatcher.feed.clone();
        tasks.spawn(async move {
            feed.report().await;
            Ok(())
        });
        if let Some(file) = file.clone() {
            tasks.spawn(file.run(dispatcher));
        }
        let stopping = async move {
            shutdown.await;
            end_streams.cancel(); // the drain would wait for them
        };
        let result = tokio::select! {
            result = service.run(routes, stopping) => result,
            Some(ended) = tasks.join_next() => Err(match ended.and_then(|result| result) {
                Err(error) => RunError::Task(error),
                Ok(()) => RunError::Ended,
            }),
        };
        tasks.shutdown().await;
        if let Some(file) = file {
            file.save(catalog).await?;
        }
        result
    }
}
