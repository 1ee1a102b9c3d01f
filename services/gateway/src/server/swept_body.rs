//! Responses on HTTP/2 streams, with a timeout for clients that do not read them.
//!
//! HTTP/2 has a flow-control window per stream. While a client keeps one closed, its socket is not blocked and nobody
//! polls the response for its next frame, so the response can't notice by itself that it is not read. Then the worker's
//! sweep drops the response, and with it the request's slot and the connection to the instance. At most one frame is
//! left until the client closes the stream.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use crate::gateway::Gateway;
use crate::proxy::record::ResponseFailed;
use crate::proxy::response_body::ResponseBody;

/// All responses on one worker's HTTP/2 streams.
#[derive(Default)]
pub(super) struct SweptBodies(Mutex<Vec<Weak<HeldResponse>>>);

/// The body of a response on a stream.
pub(super) struct SweptBody {
    gateway: Arc<Gateway>,
    held: Arc<HeldResponse>,
}

/// A response, shared by its stream and the sweep.
struct HeldResponse {
    /// `None` once the sweep has dropped it.
    response: Mutex<Option<ResponseBody>>,
    /// Since when the client could have read on, in milliseconds since the gateway's start; 0 while the instance is
    /// waited for.
    unread_since: AtomicU64,
}

/// Why a stream broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum SweptBodyError {
    #[error(transparent)]
    Response(#[from] ResponseFailed),
    #[error("the client did not read its response")]
    Unread,
}

impl SweptBodies {
    pub(super) fn add(&self, response: ResponseBody, gateway: &Arc<Gateway>) -> SweptBody {
        let unread_since = AtomicU64::new(now(gateway));
        let held = Arc::new(HeldResponse { response: Mutex::new(Some(response)), unread_since });
        self.0.lock().push(Arc::downgrade(&held));
        SweptBody { gateway: gateway.clone(), held }
    }

    /// Drops responses that have not been read for `timeout`. `now` is in milliseconds since the gateway's start.
    pub(super) fn sweep(&self, now: u64, timeout: Duration) {
        let mut bodies = std::mem::take(&mut *self.0.lock());
        bodies.retain(|held| held.upgrade().is_some_and(|held| held.sweep(now, timeout)));
        self.0.lock().append(&mut bodies);
    }
}

fn now(gateway: &Gateway) -> u64 {
    gateway.millis(Instant::now()).max(1)
}

impl HeldResponse {
    /// Drops the response if it has not been read for `timeout`. Returns whether it is still here.
    fn sweep(&self, now: u64, timeout: Duration) -> bool {
        let since = self.unread_since.load(Relaxed);
        if since == 0 || u128::from(now.saturating_sub(since)) < timeout.as_millis() {
            return true;
        }
        let response = self.response.lock().take();
        drop(response); // without holding the lock
        false
    }
}

impl Body for SweptBody {
    type Data = Bytes;
    type Error = SweptBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SweptBodyError>>> {
        let mut response = self.held.response.lock();
        let Some(response) = response.as_mut() else { return Poll::Ready(Some(Err(SweptBodyError::Unread))) };
        let (since, now) = (self.held.unread_since.load(Relaxed), now(&self.gateway));
        if since != 0 {
            response.unread(Duration::from_millis(now.saturating_sub(since)));
        }
        let frame = Pin::new(response).poll_frame(cx);
        let since = if frame.is_pending() { 0 } else { now };
        self.held.unread_since.store(since, Relaxed);
        frame.map(|frame| frame.map(|frame| frame.map_err(SweptBodyError::Response)))
    }

    fn is_end_stream(&self) -> bool {
        self.held.response.lock().as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.held.response.lock().as_ref().map(Body::size_hint).unwrap_or_default()
    }
}
