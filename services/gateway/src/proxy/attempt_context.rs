//! The state that the attempts of one request share, and the outcome of one: a [`Relay`] or an [`AttemptFailure`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Response, StatusCode, Version};
use tokio::time::Sleep;

use super::active::ActiveRequest;
use super::response_body::{Relay, ResponseBody, ResponseSource};
use super::upstream_request::UpstreamRequest;
use crate::client_conn::ClientConn;
use crate::error::Cause;
use crate::headers::{self, HUB_INSTANCE};
use crate::replay::ReplayState;
use crate::retry::Reached;
use crate::upstream::{Instance, ServiceSettings};

/// The state that the attempts of one request share.
pub(super) struct AttemptContext {
    pub(super) client: Arc<ClientConn>,
    pub(super) settings: Arc<ServiceSettings>,
    pub(super) request: UpstreamRequest,
    pub(super) is_retry: bool,
    /// Whether the gateway asks on its own behalf: interim responses are not the client's.
    pub(super) is_own: bool,
    /// Whether the service gets the path without its name.
    pub(super) is_stripped: bool,
    /// Whether to open a connection: an idle one has just turned out to be closed.
    pub(super) new_connection: bool,
    pub(super) deadline: Instant,
}

impl AttemptContext {
    /// An instance responds.
    pub(super) fn relay(
        &self,
        instance: &Arc<Instance>,
        head: Response<()>,
        source: ResponseSource,
    ) -> Box<Relay> {
        // A live stream may be silent for any time.
        let is_live = headers::is_event_stream(head.headers()) || headers::is_grpc(head.headers());
        let config = &self.client.gateway.config;
        Box::new(Relay {
            head,
            source,
            instance: instance.clone(),
            idle: (!is_live).then_some(self.settings.idle),
            removed: config.timeouts.removed,
            encoder: None,
            timer: None,
            pool_size: config.limits.pool_size,
            worker: self.client.worker,
        })
    }

    /// Passes on an interim response (RFC 9110, 15.2). An HTTP/1 client gets its `100 Continue` when its body is read.
    pub(super) fn interim(&self, mut head: Response<()>) {
        let (status, request) = (head.status(), &self.request);
        let is_expected = request.options.expect_continue && request.version == Version::HTTP_2;
        if !self.is_own && (status != StatusCode::CONTINUE || is_expected) {
            headers::interim(head.headers_mut());
            self.client.put_interim(head);
        }
    }
}

/// An attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AttemptFailure {
    pub(super) cause: Cause,
    pub(super) reached: Reached,
    /// The connection had been idle, and closed before it brought a byte: not the instance's fault.
    pub(super) stale: bool,
    /// The instance refused this request and goes on with others: not its fault either.
    pub(super) request_at_fault: bool,
}

impl AttemptFailure {
    /// No connection could be opened.
    pub(super) fn unreached(cause: Cause) -> Self {
        Self { cause, reached: Reached::Nothing, stale: false, request_at_fault: false }
    }

    /// Whether nothing listens at the instance's address: it has stopped, or is starting.
    pub(super) fn nobody_is_there(&self) -> bool {
        self.reached == Reached::Nothing && matches!(self.cause, Cause::ConnectRefused | Cause::ConnectFailed)
    }
}

/// The response to the client.
pub(super) fn into_response(mut relay: Box<Relay>, mut active: Box<ActiveRequest>) -> Response<ResponseBody> {
    let (mut parts, ()) = std::mem::take(&mut relay.head).into_parts();
    let status = parts.status.as_u16();
    active.responded(status);
    relay.instance.stats.count_response(status);
    headers::response(&mut parts.headers, parts.status == StatusCode::SWITCHING_PROTOCOLS);
    parts.headers.entry(HUB_INSTANCE).or_insert_with(|| relay.instance.label.clone());
    parts.version = Version::HTTP_11;
    if let Some(extras) = active.take_extras() {
        extras.allow(&mut parts.headers);
        relay.encoder = extras.compress(parts.status, &mut parts.headers, active.memory());
    }
    Response::from_parts(parts, ResponseBody::relay(relay, active))
}

/// Limits the wait for a response to begin. The time counts from when the instance has the whole request; before that,
/// from when it stopped reading.
pub(super) struct ResponseTimer {
    timer: Option<Pin<Box<Sleep>>>,
    began: Instant,
    /// How long the response may take to begin.
    first_byte: Duration,
    /// How long the instance may not read.
    idle: Duration,
    body: Option<ReplayState>,
}

impl ResponseTimer {
    pub(super) fn new(context: &AttemptContext, began: Instant) -> Self {
        let first_byte = context.settings.first_byte;
        // The first attempt may take its full time, a retry only what is left until the deadline.
        let left = context.deadline.saturating_duration_since(began);
        let first_byte = if context.is_retry { first_byte.min(left) } else { first_byte };
        let body = context.request.body.clone();
        Self { timer: None, began, first_byte, idle: context.settings.idle, body }
    }

    /// Ready when the time is over. `blocked`: since when the instance has not been reading.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, blocked: Option<Instant>) -> Poll<()> {
        let first =
            self.began + if self.body.is_some() { self.first_byte.min(self.idle) } else { self.first_byte };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(first.into())));
        loop {
            std::task::ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            let until = match (&self.body, blocked) {
                (None, _) => self.began + self.first_byte,
                (Some(_), Some(since)) => since + self.idle,
                // The wait for the client has a timeout in the body.
                (Some(body), None) => body.ended().unwrap_or(now) + self.first_byte,
            };
            if until <= now {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until.into());
        }
    }
}
