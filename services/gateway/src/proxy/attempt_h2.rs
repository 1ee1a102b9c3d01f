//! One attempt over HTTP/2: a connection with room for another stream, the request on it, and the head of the response.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::{HeaderMap, Response, StatusCode};
use tokio::sync::oneshot;

use super::active::ActiveRequest;
use super::attempt_context::{AttemptContext, AttemptFailure, ResponseTimer};
use super::response_body::{Relay, ResponseSource};
use crate::error::Cause;
use crate::retry::Reached;
use crate::upstream::{H2Conn, H2Exchange, Instance, connect};

/// Interim responses before the final one, and their bytes: as over HTTP/1.
const MAX_INTERIM: usize = 32;
const MAX_INTERIM_SIZE: usize = 64 << 10;

/// Sends the request to the instance.
pub(super) async fn run(
    context: &mut AttemptContext,
    instance: &Arc<Instance>,
    now: Instant,
    active: &mut ActiveRequest,
) -> Result<Box<Relay>, AttemptFailure> {
    let (conn, reused) = connection(context, instance, now, active).await?;
    let (request, body, on_continue) = context.request.clone().into_h2();
    let unsent = |error: h2::Error| failure(instance, &error, Reached::Nothing, reused);
    let mut exchange = conn.send(request, body).map_err(unsent)?;
    // The wait for a stream is nobody's fault: the instance takes only so many requests at once.
    match tokio::time::timeout_at(context.deadline.into(), poll_fn(|cx| exchange.poll_open(cx))).await {
        Ok(opened) => opened.map_err(unsent)?,
        Err(_) => {
            return Err(AttemptFailure {
                request_at_fault: true,
                ..AttemptFailure::unreached(Cause::Overloaded)
            });
        }
    }
    let mut timer = ResponseTimer::new(context, Instant::now());
    let mut interim = InterimResponses { on_continue, count: 0, size: 0 };
    let head = poll_fn(|cx| match interim.poll_final(&mut exchange, context, cx) {
        Poll::Ready(head) => Poll::Ready(Some(head)),
        Poll::Pending => timer.poll(cx, None).map(|()| None),
    });
    match head.await {
        Some(Ok(Some((head, stream)))) => {
            let body = exchange.into_response_body(stream, context.client.gateway.memory.buffers.charge());
            Ok(context.relay(instance, head, ResponseSource::H2(Box::new(body))))
        }
        Some(Ok(None)) => {
            Err(AttemptFailure { reached: Reached::Response, ..AttemptFailure::unreached(Cause::BadReply) })
        }
        Some(Err(error)) => Err(failure(instance, &error, Reached::Instance, reused)),
        None => Err(AttemptFailure {
            reached: Reached::Instance,
            ..AttemptFailure::unreached(Cause::ReplyTimeout)
        }),
    }
}

/// A connection of the worker to the instance, and whether it has been used before.
async fn connection(
    context: &AttemptContext,
    instance: &Arc<Instance>,
    now: Instant,
    active: &mut ActiveRequest,
) -> Result<(H2Conn, bool), AttemptFailure> {
    let pool = instance.pool(context.client.worker);
    if !context.new_connection {
        while let Some(mut conn) = pool.and_then(|pool| pool.h2()) {
            if conn.is_open().await {
                return Ok((conn, true));
            }
        }
    }
    let conn = connect::h2(instance, context.settings.connect, &context.client.gateway.memory.buffers)
        .await
        .map_err(AttemptFailure::unreached)?;
    active.connected(now);
    if let (Some(pool), false) = (pool, instance.is_removed()) {
        pool.add_h2(conn.clone());
    }
    Ok((conn, false))
}

/// The interim responses to one request.
struct InterimResponses {
    /// Receives a message when the instance answers `100 Continue`.
    on_continue: Option<oneshot::Sender<()>>,
    count: usize,
    size: usize,
}

type FinalHead = (Response<()>, h2::RecvStream);

impl InterimResponses {
    /// Passes on what comes before the final head. `None` if that is too much.
    fn poll_final(
        &mut self,
        exchange: &mut H2Exchange,
        context: &AttemptContext,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<FinalHead>, h2::Error>> {
        loop {
            let (head, stream) = match std::task::ready!(exchange.poll_head(cx)) {
                Ok(response) => response.into_parts(),
                Err(error) => return Poll::Ready(Err(error)),
            };
            let head = Response::from_parts(head, ());
            if let Some(stream) = stream {
                return Poll::Ready(Ok(Some((head, stream))));
            }
            self.count += 1;
            self.size += size(head.headers());
            if self.count > MAX_INTERIM || self.size > MAX_INTERIM_SIZE {
                return Poll::Ready(Ok(None));
            }
            if let (StatusCode::CONTINUE, Some(on_continue)) = (head.status(), self.on_continue.take()) {
                let _ = on_continue.send(()); // fails if the timeout is over
            }
            context.interim(head);
        }
    }
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// The failure that an error means. `reached`: how far the request came, as far as the gateway knows.
fn failure(instance: &Instance, error: &h2::Error, reached: Reached, reused: bool) -> AttemptFailure {
    tracing::debug!(
        service = %instance.service,
        instance = %instance.id,
        error = error as &dyn std::error::Error,
        "attempt failed"
    );
    let declined = declined(error);
    AttemptFailure {
        cause: Cause::ConnectionBroken,
        reached: if declined.is_some() { Reached::Nothing } else { reached },
        stale: (reused && error.is_io()) || declined == Some(Declined::Connection),
        request_at_fault: refuses_request(error),
    }
}

/// The scope of an instance's refusal to process a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Declined {
    Request,
    /// It is closing the connection gracefully.
    Connection,
}

/// Whether the instance reports that it has not processed the request (RFC 9113, 8.7), so that it may be sent again
/// whatever its method. A GOAWAY fails only the requests after the last one that the instance will answer.
fn declined(error: &h2::Error) -> Option<Declined> {
    match error.reason() {
        _ if !error.is_remote() => None,
        Some(h2::Reason::REFUSED_STREAM) if error.is_reset() => Some(Declined::Request),
        _ if error.is_go_away() => Some(Declined::Connection),
        _ => None,
    }
}

/// Whether the instance has reset the request's stream for a reason that lies in the request (RFC 9113, 7): a field that
/// it finds malformed, or too much of anything. Other requests go on, on the same connection.
fn refuses_request(error: &h2::Error) -> bool {
    let blames_request = matches!(
        error.reason(),
        Some(h2::Reason::PROTOCOL_ERROR | h2::Reason::ENHANCE_YOUR_CALM | h2::Reason::HTTP_1_1_REQUIRED)
    );
    error.is_remote() && error.is_reset() && blames_request
}
