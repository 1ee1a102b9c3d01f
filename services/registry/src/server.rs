//! The registry as a server: bound first, then run until shutdown.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hubspoke_chassis::config::{Common, ConfigError};
use hubspoke_chassis::{BindError, Config, Process, RunError, Service};
use hubspoke_client::membership::default_route_ip;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::api::{self, Api, MAX_WAITS};
use crate::catalog::{EventOutcome, SavedCatalog};
use crate::cluster::RegistryRecord;
use crate::config::{Settings, StoreKind};
use crate::dispatch::Dispatcher;
use crate::exchange::MemberDialer;
use crate::gauges;
use crate::heartbeat::{HeartbeatCommand, Heartbeats};
use crate::page::{self, RelayState};
use crate::peers::Peers;
use crate::persist::SnapshotFile;
use crate::quotas::Quotas;
use crate::store::{self, Store, StoreTasks};
use crate::view::WallClock;

/// The constants of the registry's process.
pub const PROCESS: Process =
    Process::new("registry", env!("CARGO_PKG_VERSION")).with_listen("127.0.0.1:20000");

/// How long etcd may take at shutdown to forget this registry.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often `/readyz` learns why etcd was not read yet.
const READINESS_INTERVAL: Duration = Duration::from_millis(200);
/// Why the registry is not ready, while nothing better is known.
const UNREAD: &str = "the catalogue was not read yet";

/// A bound registry.
pub struct RegistryServer {
    service: Service,
    dispatcher: Arc<Dispatcher>,
    access: Arc<Access>,
    commands: UnboundedReceiver<HeartbeatCommand>,
    settings: Settings,
    file: Option<SnapshotFile>,
    store: Option<SharedStore>,
}

/// The store that several registries share.
struct SharedStore {
    store: Arc<Store>,
    tasks: StoreTasks,
    own: RegistryRecord,
}

impl RegistryServer {
    /// Binds the registry's address and restores the catalogue. Nothing is served yet.
    ///
    /// # Errors
    /// [`BindError`] if the address can't be bound or the configuration can't be used.
    pub async fn bind(config: Config<Settings>) -> Result<Self, BindError> {
        let Config { common, own: settings } = config;
        let service = Service::builder(PROCESS).standalone().bind(&common).await?;
        let epoch = match settings.store {
            StoreKind::Memory => rand::random(),
            StoreKind::Etcd => 0, // known once etcd is read
        };
        let (dispatcher, commands) =
            Dispatcher::new(&settings, epoch, &service.metrics(), MemberDialer::new(service.identity()));
        let dispatcher = Arc::new(dispatcher);
        let access = Arc::new(Access::new(settings.allow_addrs.clone(), settings.limits.clone()));
        let file = settings.data_dir.as_deref().map(SnapshotFile::in_folder);
        if let (StoreKind::Memory, Some(file)) = (settings.store, &file) {
            file.restore(&dispatcher, &access);
        }
        gauges::register(&service.metrics(), &settings.limits, &dispatcher);
        let store = match settings.store {
            StoreKind::Memory => None,
            StoreKind::Etcd => {
                // For an etcd that has no catalogue yet. With etcd, the file is a copy to go back to memory with.
                let clock = dispatcher.catalog.with(|_, now| WallClock::new(now));
                let first = file.as_ref().and_then(|file| file.saved(&access, clock)).unwrap_or_default();
                Some(Self::shared_store(&common, &settings, first, &service, &dispatcher).await?)
            }
        };
        Ok(Self { service, dispatcher, access, commands, settings, file, store })
    }

    async fn shared_store(
        common: &Common,
        settings: &Settings,
        first: SavedCatalog,
        service: &Service,
        dispatcher: &Arc<Dispatcher>,
    ) -> Result<SharedStore, BindError> {
        let token = common.registry.read_token()?;
        let peers = |own, status| Peers::new(own, status, dispatcher.clone(), token, settings.etcd.lease);
        let (store, tasks) = Store::new(&settings.etcd, dispatcher.clone(), first, peers)
            .map_err(|invalid| ConfigError::new(format!("etcd.{invalid}")))?;
        service.readiness().unmet("etcd", UNREAD);
        gauges::register_store(&service.metrics(), &store.status);
        let own = RegistryRecord {
            addr: reached_at(common, service.local_addr()).await?,
            version: PROCESS.version.to_owned(),
        };
        Ok(SharedStore { store: Arc::new(store), tasks, own })
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.service.local_addr()
    }

    /// Serves until `shutdown` completes.
    ///
    /// # Errors
    /// [`RunError`] if it ends before that.
    pub fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> BoxFuture<'static, Result<(), RunError>> {
        self.run_boxed(shutdown.boxed())
    }

    /// Boxed, so that it is compiled here, once and with this package's optimisation, instead of in each caller.
    fn run_boxed(self, shutdown: BoxFuture<'static, ()>) -> BoxFuture<'static, Result<(), RunError>> {
        self.run_until(shutdown).boxed()
    }

    async fn run_until(self, shutdown: BoxFuture<'static, ()>) -> Result<(), RunError> {
        let Self { service, dispatcher, access, commands, settings, file, store } = self;
        let catalog = dispatcher.catalog.clone();
        let end_streams = CancellationToken::new();
        let api = Api {
            dispatcher: dispatcher.clone(),
            access,
            rights: service.access(),
            quotas: Quotas::new(&settings.limits),
            store: store.as_ref().map(|shared| shared.store.clone()),
            probe_timeout: settings.heartbeat.timeout,
            deregister_wait: settings.push.deregister_wait,
            is_saved: file.is_some() && store.is_none(),
            waits: Semaphore::new(MAX_WAITS),
            max_watchers: settings.limits.watchers,
            shutdown: end_streams.clone(),
        };
        let max_body = usize::try_from(settings.limits.body.as_u64()).unwrap_or(usize::MAX);
        let routes = api::routes(Arc::new(api))
            .merge(page::routes(RelayState::new(
                catalog.clone(),
                dispatcher.dialer.clone(),
                service.access(),
                end_streams.clone(),
            )))
            .layer(DefaultBodyLimit::max(max_body))
            .layer(from_fn_with_state(catalog.clone(), api::stamp));

        let mut tasks = JoinSet::new();
        let reporter = dispatcher.clone();
        let heartbeats = Heartbeats::new(
            catalog.clone(),
            commands,
            settings.heartbeat,
            dispatcher.instruments.clone(),
            dispatcher.dialer.clone(),
            move |event| reporter.apply(event, None).unwrap_or(EventOutcome::Unknown), // results are never refused
        );
        tasks.spawn(heartbeats.run());
        tasks.spawn(dispatcher.notifier.clone().run());
        let feed = dispatcher.feed.clone();
        tasks.spawn(async move {
            feed.report().await;
            Ok(())
        });
        let mut closed = None;
        if let Some(SharedStore { store, tasks: of_store, own }) = store {
            let (status, readiness) = (store.status.clone(), service.readiness());
            tasks.spawn(async move {
                while timeout(READINESS_INTERVAL, status.listed()).await.is_err() {
                    readiness.unmet("etcd", status.etcd().error.unwrap_or_else(|| UNREAD.to_owned()));
                }
                readiness.met("etcd");
                std::future::pending().await
            });
            closed = Some(store.closed());
            tasks.spawn(store::run(store, of_store, own, end_streams.clone()));
        }
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
        if let Some(closed) = closed {
            let _ = timeout(CLOSE_TIMEOUT, closed).await; // others take over when its lease expires
        }
        tasks.shutdown().await;
        if let Some(file) = file {
            file.save(catalog).await?;
        }
        result
    }
}

/// The address at which other registries reach this one.
async fn reached_at(common: &Common, bound: SocketAddr) -> Result<String, BindError> {
    if let Some(addr) = &common.advertise {
        return Ok(addr.clone());
    }
    let port = bound.port();
    if let Some(host) = &common.advertise_host {
        let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
        return Ok(ip.map_or_else(|_| format!("{host}:{port}"), |ip| SocketAddr::new(ip, port).to_string()));
    }
    if !bound.ip().is_unspecified() {
        return Ok(bound.to_string());
    }
    let ip = default_route_ip().await.filter(|ip| ip.is_ipv4() || bound.is_ipv6());
    let ip = ip.ok_or_else(|| {
        ConfigError::new(
            "advertise_host: this machine has no default route, so it must be set for other registries",
        )
    })?;
    Ok(SocketAddr::new(ip, port).to_string())
}
