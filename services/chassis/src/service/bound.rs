use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hubspoke_client::{Directory, LoadCounters, LogClient, Member};
use hubspoke_protocol::problem::ProblemType;
use hubspoke_protocol::{REGISTRY_SERVICE, SERVICES_PATH};
use hubspoke_tls::Identity;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::error::RunError;
use super::membership::Membership;
use super::middleware::Middleware;
use crate::health::Readiness;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::rights::AccessControl;
use crate::server::{self, CONTROL_CONNECTIONS, ConnectionHandle, Drain, PortLimits};
use crate::site::{KnownHosts, SiteRule};
use crate::tls::{self, ServerTls};

/// Serves the public port until it is drained.
type ServePublic = Box<dyn FnOnce(TcpListener, Drain) -> BoxFuture<'static, ()> + Send>;

/// The readiness condition that is unmet during shutdown.
const STOPPING: &str = "stopping";

/// A bound service that does not serve yet. [`Service::builder`] makes one.
pub struct Service {
    pub(super) grace: Duration,
    pub(super) max_connections: usize,
    pub(super) id: String,
    pub(super) listener: TcpListener,
    pub(super) control: Option<TcpListener>,
    pub(super) metrics_only: Option<TcpListener>,
    pub(super) addr: SocketAddr,
    pub(super) control_addr: Option<SocketAddr>,
    pub(super) metrics_addr: Option<SocketAddr>,
    pub(super) hosts: KnownHosts,
    pub(super) member: Option<Member>,
    pub(super) access: Arc<AccessControl>,
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) tls: Option<ServerTls>,
    pub(super) log: LogClient,
    pub(super) load: LoadCounters,
    pub(super) readiness: Readiness,
    pub(super) metrics: Metrics,
}

impl Service {
    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The bound address of the control routes.
    pub fn control_addr(&self) -> SocketAddr {
        self.control_addr.unwrap_or(self.addr)
    }

    /// The bound address of the metrics.
    pub fn metrics_addr(&self) -> SocketAddr {
        self.metrics_addr.unwrap_or_else(|| self.control_addr())
    }

    /// The `Id` of this run of the service.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The instances of the required services. Always empty for a standalone service.
    pub fn directory(&self) -> Directory {
        self.member.as_ref().map(|member| member.directory().clone()).unwrap_or_default()
    }

    /// The rights here, by the tokens in the configuration. A service that requires one asks for it in its handlers.
    pub fn access(&self) -> Arc<AccessControl> {
        self.access.clone()
    }

    /// The identity of this process, for mutual TLS with others; `None` if that is off.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.clone()
    }

    /// Sends entries to the log service, which must be among the required services.
    pub fn log(&self) -> LogClient {
        self.log.clone()
    }

    /// The conditions of `/readyz`.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// The metrics of `/metrics`.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// The request counts that heartbeats report. Only a service with its own server has to update them.
    pub fn load(&self) -> LoadCounters {
        self.load.clone()
    }

    /// Registers and serves `routes` until `shutdown` completes, then stops: not ready, deregister, drain.
    ///
    /// # Errors
    /// [`RunError`] if it stops before `shutdown` completes.
    pub fn run(
        self,
        routes: Router,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> BoxFuture<'static, Result<(), RunError>> {
        self.run_routes(routes, shutdown.boxed())
    }

    fn run_routes(
        self,
        routes: Router,
        shutdown: BoxFuture<'static, ()>,
    ) -> BoxFuture<'static, Result<(), RunError>> {
        let routes = routes.layer(self.middleware(Some(self.load.clone()), self.member.is_some()));
        let app = if self.control.is_none() { routes.merge(self.control_routes()) } else { routes };
        let (limits, tls) = (PortLimits::new(self.max_connections), self.tls.clone());
        let serve: ServePublic =
            Box::new(move |listener, drain| server::serve(limits, listener, app, drain, tls).boxed());
        self.run_server(shutdown, serve)
    }

    /// [`Service::run`] with the service's own server on the public port; `control_listen` must be set. The server
    /// must return at most [`Drain::grace`] after [`Drain::started`].
    ///
    /// # Errors
    /// [`RunError`] if it ends before `shutdown` completes.
    pub fn run_with<F, Fut>(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
        serve: F,
    ) -> BoxFuture<'static, Result<(), RunError>>
    where
        F: FnOnce(TcpListener, Drain) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.run_server(shutdown.boxed(), Box::new(|listener, drain| serve(listener, drain).boxed()))
    }

    /// Boxed, so that it is compiled here, once and with this package's optimisation, instead of in each caller.
    fn run_server(
        self,
        shutdown: BoxFuture<'static, ()>,
        serve: ServePublic,
    ) -> BoxFuture<'static, Result<(), RunError>> {
        self.serve_until(shutdown, serve).boxed()
    }

    async fn serve_until(
        mut self,
        shutdown: BoxFuture<'static, ()>,
        serve: ServePublic,
    ) -> Result<(), RunError> {
        let (start_drain, draining) = watch::channel(false);
        let drain = Drain::new(draining, self.grace);
        let control_app = self.control_routes();
        let metrics_app = self.metrics.routes().layer(self.middleware(None, false));
        let mut servers = JoinSet::new();
        servers.spawn(serve(self.listener, drain.clone()));
        // Whoever scrapes needs no certificate: there is nothing else on that port.
        for (listener, app, tls) in [
            (self.control.take(), control_app, self.tls.take()),
            (self.metrics_only.take(), metrics_app, None),
        ] {
            let Some(listener) = listener else { continue };
            let limits = PortLimits::new(self.max_connections.min(CONTROL_CONNECTIONS));
            servers.spawn(server::serve(limits, listener, app, drain.clone(), tls));
        }
        let mut reloading = JoinSet::new();
        if let Some(identity) = self.identity.take() {
            reloading.spawn(tls::keep_reloading(identity));
        }
        let mut membership = Membership::start(self.member, self.readiness.clone());
        tokio::select! {
            () = shutdown => {}
            ended = servers.join_next() => {
                return Err(ended.and_then(Result::err).map_or(RunError::Ended, RunError::Task));
            }
            ended = membership.ended() => {
                return Err(ended.err().map_or(RunError::Ended, RunError::Task));
            }
        }
        self.readiness.unmet(STOPPING, "shutting down");
        self.load.drain();
        membership.leave().await;
        start_drain.send_replace(true);
        while let Some(ended) = servers.join_next().await {
            ended?;
        }
        Ok(())
    }

    /// The routes for the registry, the orchestrator and operators.
    fn control_routes(&self) -> Router {
        let mut member = self.member.as_ref().map(Member::routes).unwrap_or_default();
        if self.identity.is_some() {
            member = member.layer(from_fn(check_pusher));
        }
        let metrics = if self.metrics_addr.is_none() { self.metrics.routes() } else { Router::new() };
        self.readiness.routes().merge(metrics).merge(member).layer(self.middleware(None, false))
    }

    /// `routed`: the routes may be reached through a gateway.
    fn middleware(&self, load: Option<LoadCounters>, routed: bool) -> Middleware {
        let site = SiteRule::new(self.hosts.clone(), routed);
        Middleware::new(&self.id, self.metrics.clone(), load, site)
    }
}

/// Refuses a push from anybody but the registry. The push key alone may have been overheard before TLS was on.
async fn check_pusher(request: Request, next: Next) -> Response {
    let certificate = request.extensions().get::<ConnectionHandle>().and_then(ConnectionHandle::certificate);
    let is_registry = certificate.is_some_and(|names| names.iter().any(|name| name == REGISTRY_SERVICE));
    if request.uri().path() != SERVICES_PATH || is_registry {
        return next.run(request).await;
    }
    let detail = "only the registry may push, and this connection's certificate is not the registry's";
    Problem::new(ProblemType::NotPermitted, detail).into_response()
}
