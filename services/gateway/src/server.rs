//! The public server: an accept loop that hands each connection to the worker with the fewest, and the shutdown.
//!
//! There is one listener, not one per worker with `SO_REUSEPORT`: the kernel's hash gives some workers half as many
//! connections again as others, and connections in a closed listener's queue would be lost at shutdown.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use hubspoke_chassis::server::pause_after_accept_error;
use hubspoke_chassis::{BindError, Config, Drain, Process, RunError, Service};
use hubspoke_client::Directory;
use hubspoke_protocol::{EVERY_SERVICE, META_GATEWAY_HOSTS};
use hubspoke_tls::IssueCert;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use self::tls::{Handshakes, RELOAD, TlsPort};
use self::worker::{Phase, WorkerHandle};
use crate::config::GatewayConfig;
use crate::gateway::Gateway;
use crate::metrics;

mod client_io;
mod connection;
mod frame_scan;
mod http2;
mod idle_clients;
mod stream_queue;
mod swept_body;
mod tls;
mod worker;

/// The gateway's process: its name and default addresses.
pub const PROCESS: Process = Process::new("gateway", env!("CARGO_PKG_VERSION"))
    .with_listen("127.0.0.1:20001")
    .with_control_listen("127.0.0.1:20011");

/// Maximum number of connections taken from the accept queue at shutdown: more than it holds, but a bound if clients
/// keep connecting.
const MAX_BACKLOG: usize = 8192;
/// TCP keep-alive, since an upgraded connection or a live stream has no timeout that would notice a dead client.
const KEEPALIVE: socket2::TcpKeepalive = socket2::TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(20))
    .with_retries(3);

/// A gateway that is bound and not yet serving.
pub struct GatewayServer {
    service: Service,
    gateway: Arc<Gateway>,
    tls: Option<TlsPort>,
}

impl GatewayServer {
    /// Binds both addresses. Serves nothing until [`GatewayServer::run`].
    ///
    /// # Errors
    /// If an address can't be bound, or the service can't be set up otherwise.
    pub async fn bind(config: Config<GatewayConfig>) -> Result<Self, BindError> {
        let Config { mut common, own } = config;
        // The control routes are never served on the public port.
        common.control_listen.get_or_insert(SocketAddr::new(common.listen.ip(), 0));
        let requires: Vec<&str> = match own.exposes_all() {
            true => vec![EVERY_SERVICE],
            false => own.expose.iter().map(String::as_str).chain(own.asked_services()).collect(),
        };
        let hosts = own.gateway_hosts(&common.name).to_string();
        let builder = Service::builder(PROCESS).requires(requires).meta(META_GATEWAY_HOSTS, hosts);
        let service = builder.bind(&common).await?;
        let metrics = service.metrics();
        metrics::allow_series(&metrics);
        let tls = TlsPort::bind(&own, &metrics.meter(), PROCESS.name).await?;
        let https = tls.as_ref().map(|tls| tls.https(&own.tls));
        let gateway = Gateway::new(own, https, &common.name, service.load(), &metrics);
        let gateway = Arc::new(gateway.with_identity(service.identity()));
        metrics::instruments(&metrics.meter(), &gateway);
        let counted = Arc::downgrade(&gateway);
        gateway.load.count_upstream(move || {
            counted.upgrade().map(|gateway| gateway.upstream_counts()).unwrap_or_default()
        });
        Ok(Self { service, gateway, tls })
    }

    /// The bound public address.
    pub fn local_addr(&self) -> SocketAddr {
        self.service.local_addr()
    }

    /// The bound address for TLS, if it is on.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|tls| tls.addr)
    }

    /// Lets certificates be made for hosts that no file has one for.
    pub fn issue_certificates(&self, issue: IssueCert) {
        if let Some(tls) = &self.tls {
            tls.issue_with(issue);
        }
    }

    /// The bound address of the control routes.
    pub fn control_addr(&self) -> SocketAddr {
        self.service.control_addr()
    }

    /// Serves until `shutdown` completes, then drains.
    ///
    /// # Errors
    /// If the gateway ends before that.
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
        let directory = self.service.directory();
        let (gateway, tls) = (self.gateway, self.tls);
        let serve = |listener, drain| serve(listener, tls, drain, gateway, directory);
        self.service.run_with(shutdown, serve).await
    }
}

async fn serve(
    listener: TcpListener,
    tls: Option<TlsPort>,
    drain: Drain,
    gateway: Arc<Gateway>,
    directory: Directory,
) {
    for listener in std::iter::once(&listener).chain(tls.as_ref().map(|tls| &tls.listener)) {
        // Accepted connections inherit it.
        if let Err(error) = socket2::SockRef::from(listener).set_tcp_keepalive(&KEEPALIVE) {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "can't set TCP keep-alive on client connections"
            );
        }
    }
    // Dropping this stops the workers.
    let phase = watch::Sender::new(Phase::Serve);
    let started: io::Result<Vec<_>> = (0..gateway.workers)
        .map(|index| WorkerHandle::start(index, gateway.clone(), phase.subscribe()))
        .collect();
    let (workers, ends): (Vec<WorkerHandle>, Vec<oneshot::Receiver<()>>) = match started {
        Ok(started) => started.into_iter().unzip(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "can't start worker threads");
            return;
        }
    };
    let mut ends: FuturesUnordered<_> = ends.into_iter().collect();
    directory.follow(gateway.clone());
    let mut stop = std::pin::pin!(async {
        drain.started().await;
        gateway.draining.store(true, Relaxed);
        tokio::time::sleep(gateway.config.drain_delay).await;
    });
    // Dropping this stops the task.
    let mut renewing = JoinSet::new();
    if let Some(renewer) = tls.as_ref().and_then(|tls| tls.renewer.clone()) {
        renewing.spawn(renewer.run());
    }
    let mut reload = tokio::time::interval(RELOAD);
    let mut reloading: Option<JoinHandle<()>> = None;
    reload.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(end) = ends.next() => {
                tracing::error!(panicked = end.is_err(), "worker ended unexpectedly, stopping the gateway");
                return;
            }
            accepted = listener.accept() => match accepted.and_then(|(stream, addr)| Ok((stream.into_std()?, addr))) {
                Ok((stream, addr)) => assign(&gateway, &workers, stream, addr, None),
                Err(error) => pause_after_accept_error(&error).await,
            },
            Some((accepted, handshakes)) = accept_tls(tls.as_ref()) => match accepted {
                Ok((stream, addr)) => assign(&gateway, &workers, stream, addr, Some(handshakes)),
                Err(error) => pause_after_accept_error(&error).await,
            },
            _ = reload.tick(), if tls.is_some() => {
                // One that waits for the disk is left alone.
                if let Some(TlsPort { handshakes, .. }) = &tls
                    && reloading.as_ref().is_none_or(JoinHandle::is_finished)
                {
                    reloading = Some(handshakes.reload());
                }
            }
        }
    }
    for (stream, addr) in backlog(listener) {
        assign(&gateway, &workers, stream, addr, None);
    }
    if let Some(TlsPort { listener, handshakes, .. }) = tls {
        for (stream, addr) in backlog(listener) {
            assign(&gateway, &workers, stream, addr, Some(handshakes.clone()));
        }
    }
    drop(workers);
    phase.send_replace(Phase::Drain);
    let all = async { while ends.next().await.is_some() {} };
    if tokio::time::timeout(drain.grace(), all).await.is_err() {
        tracing::warn!(
            connections = gateway.connections.load(Relaxed),
            "shutdown_grace is over: closing connections with requests in flight"
        );
        phase.send_replace(Phase::Stop);
        while ends.next().await.is_some() {}
    }
}

/// The next connection to the port for TLS; never one if there is no such port.
async fn accept_tls(port: Option<&TlsPort>) -> Option<(io::Result<(TcpStream, SocketAddr)>, Handshakes)> {
    let TlsPort { listener, handshakes, .. } = port?;
    let accepted = listener.accept().await.and_then(|(stream, addr)| Ok((stream.into_std()?, addr)));
    Some((accepted, handshakes.clone()))
}

/// Gives a connection to the worker with the fewest.
fn assign(
    gateway: &Arc<Gateway>,
    workers: &[WorkerHandle],
    stream: TcpStream,
    addr: SocketAddr,
    tls: Option<Handshakes>,
) {
    if let Some(worker) = workers.iter().min_by_key(|worker| worker.connections()) {
        worker.hand_over(gateway, stream, addr, tls);
    }
}

/// Closes the listener and returns the connections in its queue. Their clients consider them open; closing the listener
/// would reset them.
fn backlog(listener: TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    let Ok(listener) = listener.into_std() else { return Vec::new() };
    let mut waiting = Vec::new();
    while waiting.len() < MAX_BACKLOG {
        let accepted = listener.accept();
        match accepted.and_then(|(stream, addr)| stream.set_nonblocking(true).map(|()| (stream, addr))) {
            Ok(connection) => waiting.push(connection),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => break, // mostly the queue is empty
        }
    }
    waiting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_in_the_accept_queue_outlive_the_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut clients: Vec<_> = (0..20).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let waiting = backlog(listener);
        assert_eq!(waiting.len(), clients.len());
        assert!(TcpStream::connect(addr).is_err());
        drop(waiting);
        for client in &mut clients {
            assert_eq!(io::Read::read(client, &mut [0]).unwrap(), 0); // closed, not reset
        }
    }
}
