//! One heartbeat on the wire.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hubspoke_chassis::telemetry::ServiceInstance;
use hubspoke_client::trace;
use hubspoke_protocol::{
    GatewayHeartbeat, HEART_BEAT_PATH, HUB_INSTANCE, HUB_REVISION, Revision, ServiceInfo,
};
use tokio::time::Instant;
use tracing::Span;

use super::check::{self, Check};
use crate::catalog::Incarnation;
use crate::exchange::{Callee, ExchangeError, ExchangeReply, IdleConn, MemberDialer};

/// Longest reply body that is read, in bytes. The status and load of a member take about 60.
const MAX_REPLY: usize = 4096;

/// A heartbeat to be sent.
pub(super) struct Probe {
    pub(super) to: Incarnation,
    pub(super) info: Arc<ServiceInfo>,
    /// It was removed, and is checked for its return.
    pub(super) is_removed: bool,
    /// The newest revision that concerns the member.
    pub(super) revision: Revision,
    pub(super) idle: Option<IdleConn>,
}

/// The result of a heartbeat.
pub(super) struct ProbeResult {
    pub(super) of: Incarnation,
    pub(super) is_removed: bool,
    pub(super) duration: Duration,
    pub(super) outcome: Result<Option<GatewayHeartbeat>, Failure>,
    pub(super) idle: Option<IdleConn>,
}

/// Why there is no reply.
pub(super) enum Failure {
    /// The member did not answer, or answered with another status than 200 or another `Id`.
    Missed(String),
    /// The registry could not send the heartbeat.
    NotSent(String),
}

/// Sends a heartbeat, in the current span.
pub(super) async fn send(dialer: MemberDialer, probe: Probe, timeout: Duration) -> ProbeResult {
    let Probe { to, info, is_removed, revision, idle } = probe;
    let addr = info.control_addr();
    let callee = Callee { name: &info.name, addr };
    let began = Instant::now();
    let timeout = check::timeout(&info).unwrap_or(timeout);
    let check = Check::of(&info);
    let path = match &check {
        Check::Tcp => {
            let outcome = outcome_of_connection(&dialer, callee, timeout).await;
            return ProbeResult { of: to, is_removed, duration: began.elapsed(), outcome, idle: None };
        }
        Check::Path(path) => path.clone(),
        Check::Heartbeat => Uri::from_static(HEART_BEAT_PATH),
    };
    let request = || request(addr, &path, revision);
    let reply = dialer.send(callee, idle, request, MAX_REPLY, timeout).await;
    let status = reply.as_ref().map(|reply| reply.status.as_u16());
    trace::record_outcome(&Span::current(), status.map_err(ExchangeError::kind));
    let (outcome, idle) = match reply {
        Ok(reply) if check == Check::Heartbeat && reply.status == StatusCode::OK => {
            match check_id(&info, &reply) {
                Err(reason) => (Err(Failure::Missed(reason)), reply.idle),
                // A body that is no heartbeat is ignored: members that know only the core protocol may send anything.
                Ok(()) => (Ok(reply.body.and_then(|body| serde_json::from_slice(&body).ok())), reply.idle),
            }
        }
        // What a program answers that knows nothing of heartbeats says nothing about its load.
        Ok(reply)
            if check != Check::Heartbeat && reply.status.is_success() | reply.status.is_redirection() =>
        {
            (check_id(&info, &reply).map(|()| None).map_err(Failure::Missed), reply.idle)
        }
        Ok(reply) => (Err(Failure::Missed(format!("answered {}", reply.status))), reply.idle),
        Err(error) if error.is_local(addr) => (Err(Failure::NotSent(error.reason())), None),
        Err(error) => (Err(Failure::Missed(error.reason())), None),
    };
    ProbeResult { of: to, is_removed, duration: began.elapsed(), outcome, idle }
}

async fn outcome_of_connection(
    dialer: &MemberDialer,
    to: Callee<'_>,
    timeout: Duration,
) -> Result<Option<GatewayHeartbeat>, Failure> {
    let connected = dialer.reach(to, timeout).await;
    let status = connected.as_ref().map(|()| StatusCode::OK.as_u16());
    trace::record_outcome(&Span::current(), status.map_err(ExchangeError::kind));
    match connected {
        Ok(()) => Ok(None),
        Err(error) if error.is_local(to.addr) => Err(Failure::NotSent(error.reason())),
        Err(error) => Err(Failure::Missed(error.reason())),
    }
}

pub(super) fn probe_span(owner: &ServiceInstance, info: &ServiceInfo) -> Span {
    let _entered = owner.enter();
    let (service, instance, addr) = (&info.name, info.id(), info.control_addr());
    let operation = Some("heartbeat");
    trace::Attempt { operation, method: "GET", path: HEART_BEAT_PATH, service, instance, addr, resend: 0 }
        .span()
}

fn request(addr: &str, path: &Uri, revision: Revision) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = path.clone();
    let headers = request.headers_mut();
    trace::inject(headers);
    for (name, value) in
        [(header::HOST, addr.to_owned()), (HeaderName::from_static(HUB_REVISION), revision.to_string())]
    {
        // Valid addresses and revisions are valid header values.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    request
}

/// Whether the registered instance itself has answered. Addresses are reused, and another healthy process must not keep a
/// dead instance in the catalogue: its answers have another `Hub-Instance`. An instance without an `Id` sends none.
fn check_id(info: &ServiceInfo, reply: &ExchangeReply) -> Result<(), String> {
    let registered = info.id.as_deref().map(str::as_bytes);
    let answered = reply.headers.get(HUB_INSTANCE).map(HeaderValue::as_bytes);
    match answered {
        // Members need not send it, unless nothing else shows that the control address is theirs.
        None if !info.controls_other_host() => Ok(()),
        None => Err("the answer has no Hub-Instance, which ControlAddr on another host requires".to_owned()),
        answered if answered == registered => Ok(()),
        Some(other) => {
            let other: String = String::from_utf8_lossy(other).chars().take(100).collect();
            Err(format!("another process answers at this address: Id {other}"))
        }
    }
}
