//! The requests of one delivery on the wire.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body::{Body, Frame, SizeHint};
use hubspoke_chassis::telemetry::ServiceInstance;
use hubspoke_client::trace;
use hubspoke_protocol::{HUB_REVISION, Revision, SERVICES_PATH, ServiceInfo};
use tracing::Span;

use super::plan::PushRequest;
use crate::exchange::{Callee, IdleConn, MemberDialer};

/// Longest reply body that is read, in bytes. It is ignored, but lets the connection be reused.
const MAX_REPLY: usize = 4096;

/// Sends requests until one fails, in the current span. Returns how many were acknowledged, the connection if it can
/// be reused, and the reason of a failure.
pub(super) async fn send(
    dialer: &MemberDialer,
    info: &ServiceInfo,
    requests: &[PushRequest],
    revision: Revision,
    mut idle: Option<IdleConn>,
    timeout: Duration,
) -> (usize, Option<IdleConn>, Option<String>) {
    let addr = info.control_addr();
    for (acknowledged, push) in requests.iter().enumerate() {
        let request = || request(addr, info, push, revision);
        let to = Callee { name: &info.name, addr };
        match dialer.send(to, idle.take(), request, MAX_REPLY, timeout).await {
            Ok(reply) if reply.status.is_success() => idle = reply.idle,
            Ok(reply) => {
                trace::record_outcome(&Span::current(), Ok(reply.status.as_u16()));
                return (acknowledged, reply.idle, Some(format!("answered {}", reply.status)));
            }
            Err(error) => {
                trace::record_outcome(&Span::current(), Err(error.kind()));
                return (acknowledged, None, Some(error.reason()));
            }
        }
    }
    trace::record_outcome(&Span::current(), Ok(StatusCode::OK.as_u16()));
    (requests.len(), idle, None)
}

pub(super) fn push_span(owner: &ServiceInstance, info: &ServiceInfo, first: Option<&PushRequest>) -> Span {
    let _entered = owner.enter();
    let (service, instance, addr) = (&info.name, info.id(), info.control_addr());
    let operation = Some("push");
    let method = first.map_or("PUT", |request| request.method.as_str());
    trace::Attempt { operation, method, path: SERVICES_PATH, service, instance, addr, resend: 0 }.span()
}

fn request(addr: &str, info: &ServiceInfo, push: &PushRequest, revision: Revision) -> Request<PushBody> {
    let mut request = Request::new(PushBody::new(&push.body));
    *request.method_mut() = push.method.clone();
    *request.uri_mut() = Uri::from_static(SERVICES_PATH);
    let authorization = info.push_key.as_ref().map(|key| format!("Bearer {key}"));
    let headers = request.headers_mut();
    trace::inject(headers);
    for (name, value) in [
        (header::HOST, Some(addr.to_owned())),
        (HeaderName::from_static(HUB_REVISION), Some(revision.to_string())),
        (header::CONTENT_TYPE, Some("application/json".to_owned())),
        (header::AUTHORIZATION, authorization),
    ] {
        // Push keys that are not valid header values are refused at registration.
        if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
            headers.insert(name, value);
        }
    }
    request
}

/// A body in parts that are shared with other requests.
#[derive(Debug)]
struct PushBody {
    left: VecDeque<Bytes>,
    bytes: u64,
}

impl PushBody {
    fn new(parts: &[Bytes]) -> Self {
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        Self { left: parts.iter().cloned().collect(), bytes }
    }
}

impl Body for PushBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.left.pop_front();
        self.bytes -= part.as_ref().map_or(0, |part| part.len() as u64);
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes)
    }
}
