//! The membership of one replica: registered under the program's own address, with a control address here that answers
//! its heartbeats.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hubspoke_client::membership::{MemberConfig, MemberError, RegistryError};
use hubspoke_client::{LoadCounters, Member};
use hubspoke_protocol::{HEART_BEAT_PATH, HUB_INSTANCE, Heartbeat, ServiceInfo, Status};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::server::Limits;
use crate::check::{Health, Verdict};
use crate::platform::{HostAddrs, Platform, host_port};

mod server;

/// How long a leaving member waits for the registry, which answers within 1 s.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Bounds of a control port: a heartbeat or push takes milliseconds.
const CONTROL_LIMITS: Limits = Limits { connections: 64, time: Duration::from_secs(10) };

/// Why a replica can't be a member.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    #[error("can't open a control port on {0}")]
    Control(std::net::IpAddr, #[source] io::Error),
    #[error(transparent)]
    Member(#[from] MemberError),
}

/// A member that registers and renews until it [leaves](Self::leave). Dropped, it only stops.
pub(crate) struct Registration {
    member: Member,
    stop: CancellationToken,
    running: AbortOnDropHandle<()>,
    _server: AbortOnDropHandle<()>,
}

impl Registration {
    /// Starts to register `info`.
    ///
    /// # Errors
    /// If the control port can't be opened, or the name or address is invalid.
    pub(crate) async fn start(
        platform: &Platform,
        host: &HostAddrs,
        mut info: ServiceInfo,
        health: Health,
    ) -> Result<Self, JoinError> {
        let failed = |error| JoinError::Control(host.local, error);
        // On all addresses if the registered host is a name, which may be any of them.
        let listen = if host.advertise.parse() == Ok(host.local) { host.local } else { wildcard(host.local) };
        let listener = TcpListener::bind(SocketAddr::new(listen, 0)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        info.control_addr = Some(host_port(&host.advertise, port));
        let mut config = MemberConfig::new(&platform.config.registry, info);
        config.token.clone_from(&platform.config.token);
        let instance = config.info.id.as_deref().and_then(|id| HeaderValue::from_str(id).ok());
        let member = Member::new(config, LoadCounters::default())?;
        let routes = member.routes().layer(from_fn_with_state((health, instance), heartbeat));
        let server = AbortOnDropHandle::new(tokio::spawn(server::serve(listener, routes, CONTROL_LIMITS)));
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let (member, stop) = (member.clone(), stop.clone());
            async move { member.run(stop.cancelled_owned()).await }
        });
        Ok(Self { member, stop, running: AbortOnDropHandle::new(running), _server: server })
    }

    /// Whether the registry knows it.
    pub(crate) fn joined(&self) -> watch::Receiver<bool> {
        self.member.joined()
    }

    /// Why it can't register; `None` if it can.
    pub(crate) fn failing(&self) -> watch::Receiver<Option<Arc<RegistryError>>> {
        self.member.failing()
    }

    /// Deregisters, with a reason for the instance's history. Returns when the members that call it know, or after 2 s.
    pub(crate) async fn leave(self, reason: Option<&str>) {
        self.stop.cancel();
        let left = timeout(LEAVE_TIMEOUT, async {
            let _ = self.running.await; // a call in progress ends first
            match reason {
                _ if !*self.member.joined().borrow() => Ok(()),
                Some(reason) => self.member.deregister_because(reason).await,
                None => self.member.deregister().await,
            }
        });
        match left.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "can't deregister; the registry will remove this instance after missed heartbeats"
            ),
            Err(_) => {
                tracing::warn!("deregistration timed out; the registry will remove this instance later")
            }
        }
    }
}

fn wildcard(ip: std::net::IpAddr) -> std::net::IpAddr {
    if ip.is_ipv4() { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() }
}

/// Answers heartbeats with the program's health instead of our own. Its load is unknown here; gateways know it.
async fn heartbeat(
    State((health, instance)): State<(Health, Option<HeaderValue>)>,
    request: Request,
    next: Next,
) -> Response {
    let is_heartbeat = request.uri().path() == HEART_BEAT_PATH;
    let mut response = next.run(request).await;
    if is_heartbeat && response.status().is_success() {
        let answer = |status| Json(Heartbeat { status, ..Heartbeat::default() }).into_response();
        response = match health.verdict() {
            Verdict::Serving => answer(Status::Serving),
            Verdict::Draining => answer(Status::Draining),
            Verdict::Failing => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        };
    }
    if let Some(instance) = instance {
        response.headers_mut().insert(HUB_INSTANCE, instance);
    }
    // Nobody but the registry talks to this port, and not often.
    response.headers_mut().insert("connection", HeaderValue::from_static("close"));
    response
}
