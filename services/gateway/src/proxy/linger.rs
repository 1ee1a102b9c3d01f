//! A client's body as the gateway reads it. Where nobody wants the rest of it (the request was refused, or has failed),
//! it is read on for a while all the same: a server that closes while the client still sends resets the connection, and
//! the client may never see why (RFC 9112, 9.6). Bounded in bytes and time.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::{Version, request};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::runtime::Handle;

/// Most bytes that are read and thrown away.
const MAX_BYTES: usize = 64 << 20;
/// Longest time that is spent on them.
const MAX_TIME: Duration = Duration::from_secs(5);

/// A client's body.
pub(crate) struct ClientBody {
    /// `None` once it has failed.
    body: Option<Incoming>,
    /// HTTP/2 ends a stream without harm to what was said on it.
    is_http1: bool,
    /// A client that waits for `100 Continue` sends nothing, and reading would tell it to.
    holds_back: bool,
}

impl ClientBody {
    pub(crate) fn new(body: Incoming, parts: &request::Parts) -> Self {
        let is_http1 = parts.version != Version::HTTP_2;
        let holds_back = !body.is_end_stream() && parts.headers.contains_key(EXPECT);
        Self { body: Some(body), is_http1, holds_back }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.holds_back = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(Some(Err(_))) = frame {
            self.body = None;
        }
        frame
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        if !self.is_http1 || self.holds_back || self.is_end_stream() {
            return;
        }
        // Ends with the body, with the patience for it, or with the worker's event loop.
        if let (Some(body), Ok(runtime)) = (self.body.take(), Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(MAX_TIME, read_on(body)));
        }
    }
}

async fn read_on(mut body: Incoming) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > MAX_BYTES {
            return;
        }
    }
}
