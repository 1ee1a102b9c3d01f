//! A reply's body on its way to the client.
//!
//! It owns what the request holds until the last byte is sent: the connection to the instance, which it drives and
//! returns to the pool, and the request. Dropped early, it closes the connection.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::active::ActiveRequest;
use super::record::ReplyFailed;
use super::tunnel::Tunnel;
use crate::headers;
use crate::upstream::Conn;

/// The body of every reply.
pub(crate) struct Reply {
    content: Content,
    /// Completed and dropped with the reply.
    active: Option<Box<ActiveRequest>>,
}

enum Content {
    /// From the gateway itself.
    Text(Option<Bytes>),
    /// From an instance.
    Instance(Box<Relay>),
    /// The instance has switched protocols: there is no body.
    Tunnel(Box<Tunnel>),
}

/// Where an instance's reply is read from.
#[derive(Default)]
pub(crate) enum ReplySource {
    /// A connection that the reply drives, and returns to the pool.
    H1(Box<Conn>),
    H2(Incoming),
    Tunnel(Box<Tunnel>),
    /// The reply is complete.
    #[default]
    Over,
}

/// A reply that an instance is sending.
pub(crate) struct Relay {
    pub(crate) source: ReplySource,
    /// The longest time without a byte; `None` on a live stream.
    pub(crate) idle: Option<Duration>,
    /// Created when the instance is waited for.
    pub(crate) timer: Option<Pin<Box<Sleep>>>,
    /// The maximum number of idle connections in the pool.
    pub(crate) pool_size: usize,
    pub(crate) worker: usize,
}

impl Reply {
    pub(crate) fn text(text: impl Into<Bytes>, active: Box<ActiveRequest>) -> Self {
        Self { content: Content::Text(Some(text.into())), active: Some(active) }
    }

    pub(crate) fn relay(relay: Relay, active: Box<ActiveRequest>) -> Self {
        let mut reply = Self { content: Content::Instance(Box::new(relay)), active: Some(active) };
        reply.finish_if_over();
        reply
    }

    pub(crate) fn tunnel(tunnel: Box<Tunnel>, mut active: Box<ActiveRequest>) -> Self {
        active.complete();
        Self { content: Content::Tunnel(tunnel), active: Some(active) }
    }

    /// The tunnel of a 101. The request itself is over.
    pub(crate) fn into_tunnel(self) -> Option<Box<Tunnel>> {
        if let Content::Tunnel(tunnel) = self.content { Some(tunnel) } else { None }
    }

    fn finish_if_over(&mut self) {
        if let Content::Instance(relay) = &self.content
            && relay.source.is_over()
        {
            self.finish();
        }
    }

    /// The last byte has been read: the connection can carry the next request.
    fn finish(&mut self) {
        let Content::Instance(relay) = &mut self.content else { return };
        if let (ReplySource::H1(conn), Some(active)) = (std::mem::take(&mut relay.source), &mut self.active) {
            active.give_back(conn, relay.worker, relay.pool_size);
        }
        if let Some(active) = &mut self.active {
            active.complete();
        }
    }
}

impl ReplySource {
    fn is_over(&self) -> bool {
        match self {
            Self::H1(conn) => conn.http.is_end_stream(),
            Self::H2(body) => body.is_end_stream(),
            Self::Tunnel(_) | Self::Over => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::H1(conn) => conn.http.size_hint(),
            Self::H2(body) => body.size_hint(),
            Self::Tunnel(_) | Self::Over => SizeHint::with_exact(0),
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplyFailed>>> {
        match self {
            Self::H1(conn) => conn.http.poll_frame(cx).map_err(|error| {
                tracing::debug!(error = &error as &dyn std::error::Error, "an instance broke off its reply");
                ReplyFailed::Broken
            }),
            Self::H2(body) => Pin::new(body).poll_frame(cx).map_err(|_| ReplyFailed::Broken),
            Self::Tunnel(_) | Self::Over => Poll::Ready(None),
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
            Content::Tunnel(_) => return Poll::Ready(None),
        };
        match &mut frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    headers::trailers(trailers);
                }
                if let (Some(data), Some(active)) = (frame.data_ref(), &mut this.active) {
                    active.sent(data.len());
                }
                this.finish_if_over();
            }
            Some(Err(error)) => {
                if let Some(active) = &mut this.active {
                    active.broke_off(*error);
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
            Content::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Content::Instance(relay) => relay.source.size_hint(),
            Content::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}
