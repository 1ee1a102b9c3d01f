//! A response on its way from its body to the write buffer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body;

use crate::encoder::BodyEncoder;
use crate::write_buf::WriteBuf;

/// A response on its way out.
pub(super) struct SendingResponse<B> {
    /// `None` when its last byte is in the write buffer. The body of a `101` stays here.
    pub(super) body: Option<B>,
    encoder: BodyEncoder,
    pub(super) then: Then,
}

/// What follows a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    KeepAlive,
    Close,
    /// The response is incomplete, and the end of the connection must show it.
    BreakOff,
    Upgrade,
}

impl<B> SendingResponse<B> {
    #[inline]
    pub(super) fn is_complete(&self) -> bool {
        self.body.is_none() || self.then == Then::Upgrade
    }

    fn break_off(&mut self) -> Poll<()> {
        (self.body, self.then) = (None, Then::BreakOff);
        Poll::Ready(())
    }

    fn end(&mut self, out: &mut WriteBuf) {
        self.body = None;
        if self.encoder.encode(None, out).is_err() {
            self.then = Then::BreakOff;
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> SendingResponse<B> {
    /// A response whose head is in `out`.
    pub(super) fn new(body: B, encoder: BodyEncoder, then: Then, out: &mut WriteBuf) -> Self {
        let mut sending = Self { body: Some(body), encoder, then };
        sending.end_if_complete(out);
        sending
    }

    /// Polls the body for more while little of it waits. Pending if the body is.
    pub(super) fn fetch(&mut self, cx: &mut Context<'_>, out: &mut WriteBuf) -> Poll<()> {
        while !self.is_complete()
            && let Some(body) = &mut self.body
            && !out.is_full()
        {
            match ready!(Pin::new(body).poll_frame(cx)).transpose() {
                Ok(None) => self.end(out),
                Ok(frame) => {
                    if self.encoder.encode(frame, out).is_err() {
                        return self.break_off();
                    }
                    self.end_if_complete(out);
                }
                Err(_) => return self.break_off(),
            }
        }
        Poll::Ready(())
    }

    fn end_if_complete(&mut self, out: &mut WriteBuf) {
        let has_body = self.encoder != BodyEncoder::Done;
        if self.then != Then::Upgrade && (!has_body || self.body.as_ref().is_none_or(Body::is_end_stream)) {
            self.end(out);
        }
    }
}
