//! A reply's body on its way to the client.
//!
//! It carries what the request holds until the last byte is gone: the connection to the instance, which it drives
//! and gives back to the pool, and the counters. Dropped early, it closes the connection.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::record::Record;
use crate::headers;
use crate::upstream::h1::Conn;

/// The body of every reply.
pub(crate) struct Reply {
    content: Content,
    /// Written when the reply is over.
    record: Option<Box<Record>>,
}

enum Content {
    /// The gateway's own words.
    Text(Option<Bytes>),
    /// An instance's.
    Instance(Box<Relay>),
}

/// Where an instance's reply comes from.
#[derive(Default)]
pub(crate) enum Source {
    /// A connection that is ours to drive, and to give back afterwards.
    H1(Box<Conn>),
    H2(Incoming),
    /// Nothing more is to come.
    #[default]
    Over,
}

/// A reply that an instance is sending.
pub(crate) struct Relay {
    pub(crate) source: Source,
    /// Longest silence; `None` on a live stream.
    pub(crate) idle: Option<Duration>,
    /// Made when the instance is waited for.
    pub(crate) timer: Option<Pin<Box<Sleep>>>,
    /// Idle connections kept at most.
    pub(crate) pool_size: usize,
    pub(crate) worker: usize,
}

/// Why a reply broke off after it had begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReplyFailed {
    #[error("the instance broke off its reply")]
    Broken,
    #[error("the instance fell silent within its reply")]
    Silent,
}

impl Reply {
    pub(crate) fn text(text: impl Into<Bytes>, record: Box<Record>) -> Self {
        Self { content: Content::Text(Some(text.into())), record: Some(record) }
    }

    pub(crate) fn relay(relay: Relay, record: Box<Record>) -> Self {
        let mut reply = Self { content: Content::Instance(Box::new(relay)), record: Some(record) };
        reply.finish_if_over();
        reply
    }

    fn finish_if_over(&mut self) {
        if let Content::Instance(relay) = &self.content
            && relay.source.is_over()
        {
            self.finish();
        }
    }

    /// The last byte is here: the connection can carry the next request.
    fn finish(&mut self) {
        let Content::Instance(relay) = &mut self.content else { return };
        if let (Source::H1(conn), Some(record)) = (std::mem::take(&mut relay.source), &mut self.record) {
            record.give_back(conn, relay.worker, relay.pool_size);
        }
        if let Some(record) = &mut self.record {
            record.complete();
        }
    }
}

impl Source {
    fn is_over(&self) -> bool {
        match self {
            Self::H1(conn) => conn.is_over(),
            Self::H2(body) => body.is_end_stream(),
            Self::Over => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::H1(conn) => conn.size_hint(),
            Self::H2(body) => body.size_hint(),
            Self::Over => SizeHint::with_exact(0),
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplyFailed>>> {
        match self {
            Self::H1(conn) => conn.poll_frame(cx).map_err(|error| {
                tracing::debug!(error = &error as &dyn std::error::Error, "a reply broke off");
                ReplyFailed::Broken
            }),
            Self::H2(body) => Pin::new(body).poll_frame(cx).map_err(|_| ReplyFailed::Broken),
            Self::Over => Poll::Ready(None),
        }
    }
}

impl Relay {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplyFailed>>> {
        match self.source.poll_frame(cx) {
            Poll::Ready(frame) => {
                self.timer = None;
                Poll::Ready(frame)
            }
            Poll::Pending => self.wait(cx),
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplyFailed>>> {
        let Some(idle) = self.idle else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        timer.as_mut().poll(cx).map(|()| Some(Err(ReplyFailed::Silent)))
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = ReplyFailed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyFailed>>> {
        let this = &mut *self;
        let mut frame = match &mut this.content {
            Content::Text(text) => {
                let text = text.take().filter(|text| !text.is_empty());
                return Poll::Ready(text.map(|text| Ok(Frame::data(text))));
            }
            Content::Instance(relay) => std::task::ready!(relay.poll_frame(cx)),
        };
        match &mut frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    headers::trailers(trailers);
                }
                if let (Some(data), Some(record)) = (frame.data_ref(), &mut this.record) {
                    record.sent(data.len());
                }
                this.finish_if_over();
            }
            Some(Err(error)) => {
                if let Some(record) = &mut this.record {
                    record.broke_off(*error);
                }
            }
            None => this.finish(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Text(text) => text.as_ref().is_none_or(Bytes::is_empty),
            Content::Instance(relay) => relay.source.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Content::Instance(relay) => relay.source.size_hint(),
        }
    }
}
