//! One attempt: a connection to the instance, the request on it, and the head of the reply.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use http::StatusCode;

use super::active::ActiveRequest;
use super::attempt_context::{AttemptContext, AttemptFailure, ReplyTimer};
use super::attempt_h2;
use super::reply::ReplySource;
use super::tunnel::Tunnel;
use super::upstream_response::UpstreamResponse;
use crate::error::Cause;
use crate::retry::Reached;
use crate::upstream::{Conn, Instance, connect};

/// Sends the request to the instance.
pub(super) async fn run(
    context: &mut AttemptContext,
    instance: &Arc<Instance>,
    now: Instant,
    active: &mut ActiveRequest,
) -> Result<Box<UpstreamResponse>, AttemptFailure> {
    if instance.speaks_h2() {
        // Boxed: most requests don't need its memory.
        return Box::pin(attempt_h2::run(context, instance, now, active)).await;
    }
    let client = &context.client;
    let probe = !context.request.method.is_idempotent();
    let pool_idle = client.gateway.config.timeouts.pool_idle;
    let pool = instance.pool(client.worker).filter(|_| !context.new_connection);
    let conn = match pool.and_then(|pool| pool.take(now, pool_idle, probe)) {
        Some(conn) => conn,
        None => {
            // Boxed for the same reason: mostly there is an idle one.
            let conn = Box::pin(connect(context, instance)).await.map_err(AttemptFailure::unreached)?;
            active.connected(now);
            conn
        }
    };
    send(context, instance, conn, now + active.connect_time(), false).await
}

/// Sends a request that asks for another protocol, on a connection that is not shared. If the instance agrees, the reply
/// is a [`Tunnel`]; if it declines, its reply is passed on like any other.
pub(super) async fn upgrade(
    context: &mut AttemptContext,
    instance: &Arc<Instance>,
    now: Instant,
    active: &mut ActiveRequest,
) -> Result<Box<UpstreamResponse>, AttemptFailure> {
    let conn = connect::h1(instance, context.settings.connect).await.map_err(AttemptFailure::unreached)?;
    active.connected(now);
    let mut reply = send(context, instance, conn, now + active.connect_time(), true).await?;
    if reply.response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let ReplySource::H1(conn) = reply.source
    {
        let (stream, first) = conn.http.into_parts();
        let tunnel = Tunnel { instance: stream, first, _in_flight: instance.begin() };
        reply.source = ReplySource::Tunnel(Box::new(tunnel));
    }
    Ok(reply)
}

/// Sends the request on a connection, and waits for the head of the reply.
async fn send(
    context: &mut AttemptContext,
    instance: &Arc<Instance>,
    mut conn: Box<Conn>,
    now: Instant,
    upgrade: bool,
) -> Result<Box<UpstreamResponse>, AttemptFailure> {
    let mut timer = ReplyTimer::new(context, now);
    conn.http.begin(context.request.for_h1(upgrade));
    let outcome = poll_fn(|cx| match conn.http.poll_response(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => timer.poll(cx, conn.http.blocked_since()).map(|()| None),
    })
    .await;
    let error = match outcome {
        Some(Ok(response)) => {
            return Ok(Box::new(UpstreamResponse::new(context, instance, response, ReplySource::H1(conn))));
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    tracing::debug!(
        service = %instance.service,
        instance = %instance.id,
        error = error.as_ref().map(|error| error as &dyn std::error::Error),
        "attempt failed"
    );
    let (reached, broken) = match (conn.http.has_received(), conn.http.has_sent()) {
        (true, _) => (Reached::Reply, Cause::BadReply),
        (false, true) => (Reached::Instance, Cause::ConnectionBroken),
        (false, false) => (Reached::Nothing, Cause::ConnectionBroken),
    };
    let cause = if error.is_some() { broken } else { Cause::ReplyTimeout };
    Err(AttemptFailure { cause, reached, stale: error.is_some() && conn.reused && !conn.http.has_received() })
}

/// Waits for a connection: a new one or one that another request gives back, whichever comes first.
async fn connect(context: &AttemptContext, instance: &Arc<Instance>) -> Result<Box<Conn>, Cause> {
    let timeout = context.settings.connect;
    let Some(pool) = instance.pool(context.client.worker) else {
        return connect::h1(instance, timeout).await;
    };
    let (waiting, start) = pool.wait(Instant::now());
    if start {
        let pool_size = context.client.gateway.config.limits.pool_size;
        connect::h1_into_pool(instance.clone(), context.client.worker, timeout, pool_size);
    }
    match tokio::time::timeout_at(context.deadline.into(), waiting).await {
        Ok(Ok(conn)) => conn,
        Ok(Err(_)) => Err(Cause::ConnectFailed),
        Err(_) => Err(Cause::ConnectTimeout),
    }
}
