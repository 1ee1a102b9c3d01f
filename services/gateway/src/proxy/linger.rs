//! A client's body as the gateway reads it. Where nobody wants the rest of it (the request was refused, or has failed),
//! it is read on for a while all the same: a server that closes while the client still sends resets the connection, and
//! the client may never see why (RFC 9112, 9.6). Bounded in bytes and time.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::EXPECT;
use http::{Version, request};
use http_body::{Body, Frame};
use hub_chassis::server::read_on;
use hyper::body::Incoming;

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
        if let Some(body) = self.body.take() {
            read_on(body);
        }
    }
}
