//! One attempt at an instance that speaks HTTP/2.

use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use http::Response;

use super::active::ActiveRequest;
use super::attempt_context::{AttemptContext, AttemptFailure, ReplyTimer};
use super::reply::ReplySource;
use super::upstream_response::UpstreamResponse;
use crate::error::Cause;
use crate::retry::Reached;
use crate::upstream::{Instance, connect};

/// Sends the request on the worker's connection to the instance, and waits for the head of the reply.
pub(super) async fn run(
    context: &mut AttemptContext,
    instance: &Arc<Instance>,
    now: Instant,
    active: &mut ActiveRequest,
) -> Result<Box<UpstreamResponse>, AttemptFailure> {
    let pool = instance.pool(context.client.worker);
    let (mut sender, reused) = match pool.and_then(|pool| pool.h2()).filter(|_| !context.new_connection) {
        Some(sender) => (sender, true),
        None => {
            let opened = connect::h2(instance, context.settings.connect).await;
            let (sender, connection) = opened.map_err(AttemptFailure::unreached)?;
            active.connected(now);
            // Ends with its last sender, or with this worker's event loop.
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error = &error as &dyn Error, "HTTP/2 connection to instance broke");
                }
            });
            if let (Some(pool), false) = (pool, instance.is_removed()) {
                pool.set_h2(sender.clone());
            }
            (sender, false)
        }
    };
    let mut timer = ReplyTimer::new(context, now + active.connect_time());
    let mut sending = pin!(sender.try_send_request(context.request.clone().into_h2()));
    let sent = poll_fn(|cx| match sending.as_mut().poll(cx) {
        Poll::Ready(sent) => Poll::Ready(Some(sent)),
        Poll::Pending => timer.poll(cx, None).map(|()| None),
    })
    .await;
    match sent {
        Some(Ok(response)) => {
            let (parts, body) = response.into_parts();
            let response = Response::from_parts(parts, ());
            Ok(Box::new(UpstreamResponse::new(context, instance, response, ReplySource::H2(body))))
        }
        None => Err(AttemptFailure { cause: Cause::ReplyTimeout, reached: Reached::Instance, stale: false }),
        Some(Err(error)) => {
            let declined = declined(error.error());
            let unseen = error.message().is_some() || declined.is_some();
            let closed = error.error().is_canceled() || error.error().is_closed();
            Err(AttemptFailure {
                cause: Cause::ConnectionBroken,
                reached: if unseen { Reached::Nothing } else { Reached::Instance },
                stale: (reused && closed) || declined == Some(Declined::Connection),
            })
        }
    }
}

/// What an instance has declined without processing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Declined {
    Request,
    /// It is closing the connection gracefully.
    Connection,
}

/// Whether the instance reports that it has not processed the request (RFC 9113, 8.7), so that it may be sent again
/// whatever its method. A GOAWAY fails only the requests after the last one that the instance will answer.
fn declined(error: &hyper::Error) -> Option<Declined> {
    let error = error.source()?.downcast_ref::<h2::Error>().filter(|error| error.is_remote())?;
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) if error.is_reset() => Some(Declined::Request),
        _ if error.is_go_away() => Some(Declined::Connection),
        _ => None,
    }
}
