//! A request whose body nobody reads to its end (it was refused for its length, say) is read on for a while all the
//! same: a server that closes while the caller still sends resets the connection, and the caller may never see why
//! it was refused (RFC 9112, section 9.6). Bounded in bytes and time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::runtime::Handle;

/// Most bytes that are read and thrown away.
const MAX_BYTES: usize = 64 << 20;
/// Longest time that is spent on them.
const MAX_TIME: Duration = Duration::from_secs(5);

/// A request's body that is read on when it is dropped before its end.
pub(crate) struct Lingering(Option<Body>);

impl Lingering {
    pub(crate) fn new(body: Body) -> Self {
        Self(Some(body))
    }
}

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = self.0.as_mut() else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(context);
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

impl Drop for Lingering {
    fn drop(&mut self) {
        // Where the runtime is gone, so is the connection.
        if let (Some(body), Ok(runtime)) =
            (self.0.take().filter(|body| !body.is_end_stream()), Handle::try_current())
        {
            runtime.spawn(tokio::time::timeout(MAX_TIME, read_on(body)));
        }
    }
}

async fn read_on(mut body: Body) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > MAX_BYTES {
            return;
        }
    }
}
