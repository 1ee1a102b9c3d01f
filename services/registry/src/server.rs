//! The registry as a server: bound first, then run until it is told to stop.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use hubspoke_chassis::{BindError, Config, Process, RunError, Service};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use crate::api::access::Access;
use crate::api::{self, Api};
use crate::config::Settings;
use crate::core::Core;
use crate::heartbeat::{Heartbeats, Order};
use crate::notifier::Notifier;
use crate::persist::File;
use crate::stats;

/// What is fixed about the registry.
pub const PROCESS: Process = Process {
    name: "registry",
    listen: "127.0.0.1:20000",
    control_listen: None,
    version: env!("CARGO_PKG_VERSION"),
};

/// A bound registry.
pub struct Server {
    service: Service,
    api: Arc<Api>,
    orders: UnboundedReceiver<Order>,
    settings: Settings,
    file: Option<File>,
}

impl Server {
    /// Binds the registry's address. Nothing is served yet.
    ///
    /// # Errors
    /// [`BindError`] where the address can't be bound or the configuration can't be used.
    pub async fn bind(config: Config<Settings>) -> Result<Self, BindError> {
        let Config { common, own: settings } = config;
        let token = common.registry.read_token()?;
        let networks = settings.networks().unwrap_or_default(); // read once already, by the check
        let service = Service::bind_alone(&common).await?;
        let (core, orders) = Core::new(&settings, rand::random(), &service.metrics());
        let core = Arc::new(core);
        let file = settings.data_dir.as_deref().map(File::in_folder);
        let access = Access::new(token, networks, settings.limits.clone());
        if let Some(file) = &file {
            file.restore(&core, &access);
        }
        stats::show(&service.metrics(), &settings.limits, &core);
        let api = Api {
            core,
            access,
            deregister_wait: settings.push.deregister_wait,
            max_watchers: settings.limits.watchers,
            stopping: tokio::sync::watch::Sender::new(false),
            max_body: usize::try_from(settings.limits.body.as_u64()).unwrap_or(usize::MAX),
        };
        Ok(Self { service, api: Arc::new(api), orders, settings, file })
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.service.local_addr()
    }

    /// Serves until `shutdown` is done.
    ///
    /// # Errors
    /// [`RunError`] where it ends before it was asked to.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let core = self.api.core.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(Heartbeats::new(core.clone(), self.orders, self.settings.heartbeat).run());
        let notified = core.clone();
        tasks.spawn(async move { Notifier::run(notified).await });
        let watched = core.clone();
        tasks.spawn(async move {
            watched.watch.report(&watched).await;
            Ok(())
        });
        if let Some(file) = self.file.clone() {
            let saved = core.clone();
            tasks.spawn(async move { file.keep(saved).await });
        }
        // Watchers are told to go first: the drain would wait for them.
        let watchers = self.api.clone();
        let stopping = async move {
            shutdown.await;
            watchers.stopping.send_replace(true);
        };
        let ended = tokio::select! {
            ended = self.service.run(api::routes(self.api.clone()), stopping) => ended,
            Some(died) = tasks.join_next() => Err(match died.and_then(|ended| ended) {
                Err(error) => RunError::Task(error),
                Ok(()) => RunError::Ended,
            }),
        };
        tasks.shutdown().await;
        if let Some(file) = self.file {
            file.save(core).await?;
        }
        ended
    }
}
