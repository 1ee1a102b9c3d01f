//! Reads on when a handler does not read a request's body to its end, for example because it is too long. A server
//! that closes while the client still sends resets the connection, and the client may never see the response (RFC
//! 9112, section 9.6; nginx's lingering close). Limited in bytes and time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::runtime::Handle;

/// Most bytes to discard.
const MAX_BYTES: usize = 64 << 20;
/// Longest time to spend on them.
const MAX_TIME: Duration = Duration::from_secs(5);

/// A request's body that, dropped before its end, is read on in a task.
pub(crate) struct DiscardOnDrop(Option<Body>);

impl DiscardOnDrop {
    pub(crate) fn new(body: Body) -> Self {
        Self(Some(body))
    }
}

impl HttpBody for DiscardOnDrop {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = self.0.as_mut() else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = frame {
            self.0 = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for DiscardOnDrop {
    fn drop(&mut self) {
        // Without a runtime there is no connection either.
        if let (Some(body), Ok(runtime)) =
            (self.0.take().filter(|body| !body.is_end_stream()), Handle::try_current())
        {
            runtime.spawn(tokio::time::timeout(MAX_TIME, discard(body)));
        }
    }
}

async fn discard(mut body: Body) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > MAX_BYTES {
            return;
        }
    }
}
