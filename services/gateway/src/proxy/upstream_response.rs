//! An instance's reply that has begun, and the reply to the client that it becomes.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode, Version};

use super::active::ActiveRequest;
use super::attempt_context::AttemptContext;
use super::reply::{Relay, Reply, ReplySource};
use crate::headers::{self, HUB_INSTANCE};
use crate::upstream::Instance;

/// An instance's reply that has begun.
pub(super) struct UpstreamResponse {
    pub(super) response: Response<()>,
    pub(super) source: ReplySource,
    instance: Arc<Instance>,
    worker: usize,
    idle: Duration,
    pool_size: usize,
}

impl UpstreamResponse {
    pub(super) fn new(
        context: &AttemptContext,
        instance: &Arc<Instance>,
        response: Response<()>,
        source: ReplySource,
    ) -> Self {
        Self {
            response,
            source,
            instance: instance.clone(),
            worker: context.client.worker,
            idle: context.settings.idle,
            pool_size: context.client.gateway.config.limits.pool_size,
        }
    }

    /// The reply to the client.
    pub(super) fn into_reply(self, mut active: Box<ActiveRequest>) -> Response<Reply> {
        let Self { response, source, instance, worker, idle, pool_size } = self;
        let (mut parts, ()) = response.into_parts();
        let status = parts.status.as_u16();
        active.replied(status);
        instance.stats.count_reply(status);
        headers::reply(&mut parts.headers, parts.status == StatusCode::SWITCHING_PROTOCOLS);
        parts.headers.entry(HUB_INSTANCE).or_insert_with(|| instance.label.clone());
        parts.version = Version::HTTP_11;
        let idle = (!is_live(&parts.headers)).then_some(idle);
        let reply = match source {
            ReplySource::Tunnel(tunnel) => Reply::tunnel(tunnel, active),
            source => Reply::relay(Relay { source, idle, timer: None, pool_size, worker }, active),
        };
        Response::from_parts(parts, reply)
    }
}

/// Whether the body may be silent for any time: server-sent events and gRPC streams.
fn is_live(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let is = |name: &[u8]| kind.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    is(b"text/event-stream") || is(b"application/grpc")
}
