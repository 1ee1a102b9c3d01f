//! A bound service: its listeners, its membership, its health and metrics, and the order in which they start and
//! stop. Start: bind, serve, register, ready. Stop: not ready, deregister, finish what is in flight.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use hubspoke_client::membership::{Advertise, MemberConfig, MemberError, Reach, RegistryError};
use hubspoke_client::{Directory, HttpClientError, LoadCounters, LogClient, Member};
use hubspoke_protocol::ServiceInfo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use crate::boot::in_full;
use crate::config::{Common, ConfigError};
use crate::health::Readiness;
use crate::metrics::{Metrics, MetricsError};
use crate::server::{self, Drain};
use crate::telemetry;

use self::around::Around;

mod around;

/// How long a stopping member waits for the registry, which itself answers within 1 s.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections that may wait to be accepted. A full queue costs a caller a second, so it is as long as Linux allows
/// by default (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;
/// The condition of readiness that membership sets.
const REGISTRY: &str = "registry";
/// The condition of readiness that shutdown sets.
const STOPPING: &str = "stopping";

/// Why a service can't start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is in use, not this machine's, or not allowed.
    #[error("can't listen on {addr} ({key})")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The key that sets it.
        key: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The configuration can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The membership can't be prepared.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The log client can't be made.
    #[error(transparent)]
    Client(#[from] HttpClientError),
    /// Metrics can't be set up.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// Why a service ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// One of its tasks died.
    #[error("a task of the service died")]
    Task(#[from] tokio::task::JoinError),
    /// A server ended by itself.
    #[error("the server ended by itself")]
    Ended,
}

/// A bound service that has not started to serve.
pub struct Service {
    grace: Duration,
    id: String,
    listener: TcpListener,
    control: Option<TcpListener>,
    addr: SocketAddr,
    control_addr: Option<SocketAddr>,
    member: Option<Member>,
    log: LogClient,
    load: LoadCounters,
    readiness: Readiness,
    metrics: Metrics,
}

impl Service {
    /// Binds a member that wants to know the instances of the services in `requires`.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(common: &Common, requires: &[&str]) -> Result<Self, BindError> {
        Self::bind_with(
            common,
            ServiceInfo {
                required_services: requires.iter().map(|&name| name.to_owned()).collect(),
                ..ServiceInfo::default()
            },
        )
        .await
    }

    /// [`Service::bind`] with more to register: `meta`, say. Name, id and addresses are set here.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind_with(common: &Common, info: ServiceInfo) -> Result<Self, BindError> {
        let token = common.registry.read_token()?;
        let mut service = Self::bind_alone(common).await?;
        let info = ServiceInfo { name: common.name.clone(), id: Some(service.id.clone()), ..info };
        let mut config = MemberConfig::new(&common.registry.url, info.clone());
        config.token = token.map(|token| token.expose().to_owned());
        config.advertise = advertise(common.advertise.as_deref(), service.addr, service.control_addr);
        let member = Member::new(config, service.load.clone())?;
        service.log = LogClient::new(member.directory().clone(), &info)?;
        service.readiness.unmet(REGISTRY, "not registered yet");
        service.member = Some(member);
        Ok(service)
    }

    /// Binds a service that is no member: the registry itself.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind_alone(common: &Common) -> Result<Self, BindError> {
        server::raise_file_limit();
        let (listener, addr) = listen(common.listen, "listen").await?;
        let (control, control_addr) = match common.control_listen {
            Some(control) => listen(control, "control_listen").await.map(|(l, a)| (Some(l), Some(a)))?,
            None => (None, None),
        };
        let id = telemetry::instance_id(&common.name);
        let metrics = Metrics::new(&common.name, &id)?;
        telemetry::bound(metrics.source());
        let load = LoadCounters::default();
        metrics.show_load(&load);
        let sender =
            ServiceInfo { name: common.name.clone(), id: Some(id.clone()), ..ServiceInfo::default() };
        Ok(Self {
            grace: common.shutdown_grace,
            id,
            listener,
            control,
            addr,
            control_addr,
            member: None,
            log: LogClient::new(Directory::default(), &sender)?,
            load,
            readiness: Readiness::default(),
            metrics,
        })
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The bound address of the control routes.
    pub fn control_addr(&self) -> SocketAddr {
        self.control_addr.unwrap_or(self.addr)
    }

    /// The `Id` of this start of the service.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The instances of the required services; empty for ever where the service is no member.
    pub fn directory(&self) -> Directory {
        self.member.as_ref().map(|member| member.directory().clone()).unwrap_or_default()
    }

    /// Sends entries to the log service, which must be among the required ones.
    pub fn log(&self) -> LogClient {
        self.log.clone()
    }

    /// Conditions of readiness.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// The service's metrics.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// What the heartbeat says; only a service with a server of its own has to count.
    pub fn load(&self) -> LoadCounters {
        self.load.clone()
    }

    /// Serves `routes`, takes part in the platform until `shutdown` is done, then stops in order.
    ///
    /// # Errors
    /// [`RunError`] where it ends before it was asked to.
    pub async fn run(self, routes: Router, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let routes = routes.layer(self.around(Some(self.load.clone())));
        let app = if self.control.is_none() { routes.merge(self.control_routes()) } else { routes };
        self.run_with(shutdown, |listener, drain| server::serve(listener, app, drain)).await
    }

    /// [`Service::run`] with a public server of the service's own; `control_listen` must be set. The server must
    /// return when it has drained: at most [`Drain::grace`] after [`Drain::begun`].
    ///
    /// # Errors
    /// [`RunError`] where it ends before it was asked to.
    pub async fn run_with<F, Fut>(
        mut self,
        shutdown: impl Future<Output = ()>,
        public: F,
    ) -> Result<(), RunError>
    where
        F: FnOnce(TcpListener, Drain) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (begin_drain, draining) = watch::channel(false);
        let drain = Drain::new(draining, self.grace);
        let control_app = self.control_routes();
        let mut servers = tokio::task::JoinSet::new();
        servers.spawn(public(self.listener, drain.clone()));
        if let Some(control) = self.control.take() {
            servers.spawn(server::serve(control, control_app, drain));
        }
        let (stop_member, stopped) = watch::channel(false);
        let mut membership = tokio::task::JoinSet::new();
        if let Some(member) = self.member.clone() {
            let readiness = self.readiness.clone();
            let (mut joined, mut failing) = (member.joined(), member.failing());
            membership.spawn(async move {
                loop {
                    tokio::select! {
                        biased;
                        Ok(_) = joined.wait_for(|joined| *joined) => break,
                        Ok(()) = failing.changed() => {
                            if let Some(error) = failing.borrow_and_update().as_deref() {
                                readiness.unmet(REGISTRY, format!("not registered yet: {}", in_full(error)));
                            }
                        }
                        else => break,
                    }
                }
                readiness.met(REGISTRY);
                std::future::pending::<()>().await
            });
            membership.spawn(async move {
                let mut stopped = stopped;
                member.run(async move { drop(stopped.wait_for(|stop| *stop).await) }).await;
            });
        }
        tokio::select! {
            () = shutdown => {}
            ended = servers.join_next() => {
                return Err(ended.and_then(Result::err).map_or(RunError::Ended, RunError::Task));
            }
            Some(ended) = membership.join_next() => {
                return Err(ended.err().map_or(RunError::Ended, RunError::Task));
            }
        }
        self.readiness.unmet(STOPPING, "shutting down");
        self.load.drain();
        stop_member.send_replace(true);
        if let Some(member) = &self.member {
            leave(member, membership).await;
        }
        begin_drain.send_replace(true);
        while let Some(ended) = servers.join_next().await {
            ended?;
        }
        Ok(())
    }

    /// What the registry, the orchestrator and operators ask for.
    fn control_routes(&self) -> Router {
        let member = self.member.as_ref().map(Member::routes).unwrap_or_default();
        self.readiness.routes().merge(self.metrics.routes()).merge(member).layer(self.around(None))
    }

    /// What every request goes through.
    fn around(&self, load: Option<LoadCounters>) -> Around {
        Around::new(&self.id, self.metrics.clone(), load)
    }
}

/// Under which addresses a service registers, each looked at for itself: one that is set or bound as it stands is
/// reached there. A wildcard says nothing about where: `advertise`'s host, or the local address towards the registry.
fn advertise(advertise: Option<&str>, addr: SocketAddr, control: Option<SocketAddr>) -> Advertise {
    let host = advertise.map(|advertise| advertise.rsplit_once(':').map_or(advertise, |(host, _)| host));
    let reach = |bound: SocketAddr| match host {
        _ if !bound.ip().is_unspecified() => Reach::At(bound.to_string()),
        Some(host) => Reach::At(format!("{host}:{}", bound.port())),
        None => Reach::Local(bound.port()),
    };
    let addr = advertise.map_or_else(|| reach(addr), |advertise| Reach::At(advertise.to_owned()));
    Advertise { addr, control_addr: control.map(reach) }
}

/// Lets the call that is under way end, then deregisters.
async fn leave(member: &Member, mut membership: tokio::task::JoinSet<()>) {
    let left = tokio::time::timeout(DEREGISTER_TIMEOUT, async {
        membership.join_next().await;
        if *member.joined().borrow() { member.deregister().await } else { Ok(()) }
    });
    let result: Result<Result<(), RegistryError>, _> = left.await;
    match result {
        Ok(Ok(())) => tracing::debug!("deregistered"),
        Ok(Err(error)) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "can't deregister; the registry will notice by heartbeat"
        ),
        Err(_) => tracing::warn!("the registry did not answer the deregistration in time"),
    }
}

async fn listen(addr: SocketAddr, key: &'static str) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |source| BindError::Listen { addr, key, source };
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    socket.set_reuseaddr(true).map_err(failed)?; // a restart need not wait for connections in TIME_WAIT
    socket.bind(addr).map_err(failed)?;
    let listener = socket.listen(BACKLOG).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_registered_as_it_is_reached() {
        let at = |addr: &str| Reach::At(addr.to_owned());
        let bare = [
            ("10.0.0.5:1", Some("10.0.0.5:2"), at("10.0.0.5:1"), Some(at("10.0.0.5:2"))),
            ("10.0.0.5:1", Some("0.0.0.0:2"), at("10.0.0.5:1"), Some(Reach::Local(2))),
            ("0.0.0.0:1", Some("10.0.0.5:2"), Reach::Local(1), Some(at("10.0.0.5:2"))),
            ("[::]:1", Some("[::]:2"), Reach::Local(1), Some(Reach::Local(2))),
            ("[::1]:1", None, at("[::1]:1"), None),
            ("0.0.0.0:1", None, Reach::Local(1), None),
        ];
        for (listen, control, addr, control_addr) in bare {
            let bound = control.map(|control| control.parse().unwrap());
            let got = advertise(None, listen.parse().unwrap(), bound);
            assert_eq!(got, Advertise { addr, control_addr }, "{listen} {control:?}");
        }
        let named = [
            ("0.0.0.0:1", Some("0.0.0.0:2"), Some(at("edge.example:2"))),
            ("0.0.0.0:1", Some("10.0.0.5:2"), Some(at("10.0.0.5:2"))),
            ("10.0.0.5:1", Some("0.0.0.0:2"), Some(at("edge.example:2"))),
            ("10.0.0.5:1", None, None),
        ];
        for (listen, control, control_addr) in named {
            let bound = control.map(|control| control.parse().unwrap());
            let got = advertise(Some("edge.example:80"), listen.parse().unwrap(), bound);
            assert_eq!(got, Advertise { addr: at("edge.example:80"), control_addr }, "{listen} {control:?}");
        }
    }
}
