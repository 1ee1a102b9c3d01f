//! The calls of one delivery on the wire.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hubspoke_chassis::telemetry::Source;
use hubspoke_client::trace;
use hubspoke_protocol::{HUB_REVISION, Revision, SERVICES_PATH, ServiceInfo};
use tracing::Span;

use super::plan::Call;
use crate::peer::{self, Idle};

/// Sends calls until one fails: how many were acknowledged, the connection where it can be used again, and what
/// went wrong.
pub(super) async fn send(
    info: &ServiceInfo,
    calls: &[Call],
    revision: Revision,
    mut idle: Option<Idle>,
    timeout: Duration,
) -> (usize, Option<Idle>, Option<String>) {
    let addr = info.control_addr();
    for (done, call) in calls.iter().enumerate() {
        let request = || push(addr, info, call, revision);
        match peer::ask(addr, idle.take(), request, 4096, timeout).await {
            Ok(reply) if reply.status.is_success() => idle = reply.idle,
            Ok(reply) => {
                trace::attempted(&Span::current(), Ok(reply.status.as_u16()));
                return (done, reply.idle, Some(format!("it answered {}", reply.status)));
            }
            Err(error) => {
                trace::attempted(&Span::current(), Err(error.kind()));
                return (done, None, Some(error.to_string()));
            }
        }
    }
    trace::attempted(&Span::current(), Ok(StatusCode::OK.as_u16()));
    (calls.len(), idle, None)
}

pub(super) fn span(source: &Source, info: &ServiceInfo, call: Option<&Call>) -> Span {
    let _of = source.enter();
    let (service, instance, addr) = (&info.name, info.id(), info.control_addr());
    let operation = Some("push");
    let method = call.map_or("PUT", |call| call.method.as_str());
    trace::Attempt { operation, method, path: SERVICES_PATH, service, instance, addr, resend: 0 }.span()
}

fn push(addr: &str, info: &ServiceInfo, call: &Call, revision: Revision) -> Request<Parts> {
    let mut request = Request::new(Parts::new(&call.body));
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = http::Uri::from_static(SERVICES_PATH);
    let key = info.push_key.as_ref().map(|key| format!("Bearer {key}"));
    let headers = request.headers_mut();
    trace::inject(headers);
    for (name, value) in [
        (header::HOST, Some(addr.to_owned())),
        (http::HeaderName::from_static(HUB_REVISION), Some(revision.to_string())),
        (header::CONTENT_TYPE, Some("application/json".to_owned())),
        (header::AUTHORIZATION, key),
    ] {
        // A key that fits into no header was refused when it was registered.
        if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
            headers.insert(name, value);
        }
    }
    request
}

/// A body in parts that others share.
#[derive(Debug)]
struct Parts {
    left: VecDeque<Bytes>,
    bytes: u64,
}

impl Parts {
    fn new(parts: &[Bytes]) -> Self {
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        Self { left: parts.iter().cloned().collect(), bytes }
    }
}

impl Body for Parts {
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
