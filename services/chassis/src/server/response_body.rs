use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection_state::{Client, InFlight};
use super::limits::STREAM_SEND_BUFFER;

/// The body of a response, which counts its request as in flight.
pub(super) struct ResponseBody {
    body: Body,
    /// HTTP/1: until the body has ended. hyper then has no more than one buffer of it.
    _in_flight: Option<InFlight>,
    /// HTTP/2: until the last piece of the body is written, too.
    slot: Option<Arc<StreamSlot>>,
    /// What is left of a frame that is sent in pieces.
    rest: Bytes,
}

/// One of the HTTP/2 requests that a port may have in flight.
pub(super) struct StreamSlot {
    _in_flight: InFlight,
    _permit: OwnedSemaphorePermit,
    client: Arc<Client>,
}

/// A piece of an HTTP/2 response. hyper takes a whole piece as soon as the stream may send one byte, and keeps it until
/// the client reads on.
struct Piece {
    bytes: Bytes,
    _slot: Arc<StreamSlot>,
}

impl StreamSlot {
    /// A slot for a request, unless the port has none left or the client has its share.
    pub(super) fn acquire(in_flight: InFlight, port: &Arc<Semaphore>, per_client: usize) -> Option<Self> {
        let permit = port.clone().try_acquire_owned().ok()?;
        let client = in_flight.connection().client.clone();
        let has_share = client.streams.fetch_add(1, Relaxed) >= per_client;
        let slot = Self { _in_flight: in_flight, _permit: permit, client };
        (!has_share).then_some(slot)
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.client.streams.fetch_sub(1, Relaxed);
    }
}

impl ResponseBody {
    pub(super) fn http1(body: Body, in_flight: InFlight) -> Self {
        Self { body, _in_flight: Some(in_flight), slot: None, rest: Bytes::new() }
    }

    pub(super) fn http2(body: Body, slot: StreamSlot) -> Self {
        Self { body, _in_flight: None, slot: Some(Arc::new(slot)), rest: Bytes::new() }
    }

    /// The body of a response that is too small to be counted.
    pub(super) fn uncounted(body: Body) -> Self {
        Self { body, _in_flight: None, slot: None, rest: Bytes::new() }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, slot, rest, .. } = &mut *self;
        let Some(slot) = slot else { return Pin::new(body).poll_frame(cx) };
        if rest.is_empty() {
            match ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => *rest = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let bytes = rest.split_to(rest.len().min(STREAM_SEND_BUFFER));
        let piece = Bytes::from_owner(Piece { bytes, _slot: slot.clone() });
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(body.lower().saturating_add(rest));
        hint
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
