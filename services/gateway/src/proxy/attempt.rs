//! One attempt: a connection to the instance, the request on it, and the head of the response.

use std::error::Error;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use http::StatusCode;

use super::active::ActiveRequest;
use super::attempt_context::{AttemptContext, AttemptFailure, ResponseTimer};
use super::attempt_h2;
use super::response_body::{Relay, ResponseSource};
use super::tunnel::Tunnel;
use crate::error::Cause;
use crate::memory::Charge;
use crate::retry::Reached;
use crate::upstream::{Conn, Instance, connect};

/// Sends the request to the instance.
pub(super) async fn run(
    context: &mut AttemptContext,
    instance: &Arc<Instance>,
    now: Instant,
    active: &mut ActiveRequest,
) -> Result<Box<Relay>, AttemptFailure> {
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

/// Sends a request that asks for another protocol, on a connection that is not shared. If the instance agrees, the
/// response is a [`Tunnel`]; if it declines, its response is passed on like any other.
pub(super) async fn upgrade(
    context: &mut AttemptContext,
    instance: &Arc<Instance>,
    now: Instant,
    active: &mut ActiveRequest,
) -> Result<Box<Relay>, AttemptFailure> {
    let conn = connect::h1(instance, context.settings.connect).await.map_err(AttemptFailure::unreached)?;
    active.connected(now);
    let mut response = send(context, instance, conn, now + active.connect_time(), true).await?;
    if response.head.status() == StatusCode::SWITCHING_PROTOCOLS
        && let ResponseSource::H1(conn) = std::mem::take(&mut response.source)
    {
        let (stream, first) = conn.http.into_parts();
        let tunnel = Tunnel {
            instance: stream,
            removed: context.client.gateway.config.timeouts.removed,
            first,
            in_flight: instance.begin(),
            _slot: active.take_slot(),
        };
        response.source = ResponseSource::Tunnel(Box::new(tunnel));
    }
    Ok(response)
}

/// Sends the request on a connection, and waits for the head of the response.
async fn send(
    context: &mut AttemptContext,
    instance: &Arc<Instance>,
    mut conn: Box<Conn>,
    now: Instant,
    upgrade: bool,
) -> Result<Box<Relay>, AttemptFailure> {
    let mut timer = ResponseTimer::new(context, now);
    let memory = &context.client.gateway.memory;
    let mut unsent: Option<Charge> = None;
    conn.http.begin(context.request.for_h1(upgrade));
    let outcome = poll_fn(|cx| {
        loop {
            match conn.http.poll_response(cx) {
                Poll::Ready(Ok(head)) if is_interim(head.status()) => context.interim(head),
                Poll::Ready(outcome) => return Poll::Ready(Some(outcome)),
                Poll::Pending => {
                    let blocked_since = conn.http.blocked_since();
                    if blocked_since.is_some() || unsent.is_some() {
                        let waiting = if blocked_since.is_some() { conn.http.unsent() } else { 0 };
                        unsent.get_or_insert_with(|| memory.buffers.charge()).waits(waiting);
                    }
                    return timer.poll(cx, blocked_since).map(|()| None);
                }
            }
        }
    })
    .await;
    let error = match outcome {
        Some(Ok(head)) => {
            return Ok(context.relay(instance, head, ResponseSource::H1(conn)));
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    tracing::debug!(
        service = %instance.service,
        instance = %instance.id,
        error = error.as_ref().map(|error| error as &dyn Error),
        "attempt failed"
    );
    let (reached, broken) = match (conn.http.has_received(), conn.http.has_sent()) {
        (true, _) => (Reached::Response, Cause::BadReply),
        (false, true) => (Reached::Instance, Cause::ConnectionBroken),
        (false, false) => (Reached::Nothing, Cause::ConnectionBroken),
    };
    let cause = if error.is_some() { broken } else { Cause::ReplyTimeout };
    let stale = error.is_some() && conn.reused && !conn.http.has_received();
    Err(AttemptFailure { cause, reached, stale, request_at_fault: false })
}

/// Whether another response follows.
pub(super) fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
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
