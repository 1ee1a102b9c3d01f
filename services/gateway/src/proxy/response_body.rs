//! A response's body on its way to the client.
//!
//! It owns what the request holds until the last byte is sent: the connection to the instance, which it drives and
//! returns to the pool, and the request. Dropped early, it closes the connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::active::ActiveRequest;
use super::record::ResponseFailed;
use super::tunnel::Tunnel;
use crate::extras::Encoder;
use crate::headers;
use crate::upstream::{Conn, H2Response, Instance, REMOVAL_CHECK};

/// The body of every response.
pub(crate) struct ResponseBody {
    content: Content,
    /// Completed and dropped with the response.
    active: Option<Box<ActiveRequest>>,
}

enum Content {
    /// From the gateway itself.
    Text(Option<Bytes>),
    /// From an instance.
    Instance(Box<Relay>),
}

/// Where an instance's response is read from.
#[derive(Default)]
pub(crate) enum ResponseSource {
    /// A connection that the response drives, and returns to the pool.
    H1(Box<Conn>),
    H2(Box<H2Response>),
    /// The instance has switched protocols: there is no body.
    Tunnel(Box<Tunnel>),
    /// The response is complete.
    #[default]
    Over,
}

/// A response that an instance is sending.
pub(crate) struct Relay {
    /// Taken when the response begins.
    pub(crate) head: Response<()>,
    pub(crate) source: ResponseSource,
    pub(crate) instance: Arc<Instance>,
    /// The longest time without a byte; `None` for a live stream.
    pub(crate) idle: Option<Duration>,
    /// How long the response may go on once the instance is no longer registered.
    pub(crate) removed: Duration,
    /// Set if it is compressed on its way.
    pub(crate) encoder: Option<Box<Encoder>>,
    /// Created when the instance is waited for.
    pub(crate) timer: Option<Pin<Box<Sleep>>>,
    /// The maximum number of idle connections in the pool.
    pub(crate) pool_size: usize,
    pub(crate) worker: usize,
}

impl ResponseBody {
    pub(crate) fn text(text: impl Into<Bytes>, active: Box<ActiveRequest>) -> Self {
        Self { content: Content::Text(Some(text.into())), active: Some(active) }
    }

    pub(crate) fn relay(relay: Box<Relay>, active: Box<ActiveRequest>) -> Self {
        let mut response = Self { content: Content::Instance(relay), active: Some(active) };
        response.finish_if_over();
        response
    }

    /// The tunnel of a 101. The request itself is over.
    pub(crate) fn into_tunnel(self) -> Option<Box<Tunnel>> {
        let Content::Instance(relay) = self.content else { return None };
        if let ResponseSource::Tunnel(tunnel) = relay.source { Some(tunnel) } else { None }
    }

    /// The client has left the response unread for this long.
    pub(crate) fn unread(&mut self, time: Duration) {
        if let Some(active) = &mut self.active {
            active.unread(time);
        }
    }

    /// The next part as its sender has sent it.
    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseFailed>>> {
        let mut frame = match &mut self.content {
            Content::Text(text) => {
                let text = text.take().filter(|text| !text.is_empty());
                return Poll::Ready(text.map(|text| Ok(Frame::data(text))));
            }
            Content::Instance(relay) => ready!(relay.poll_frame(cx)),
        };
        match &mut frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    headers::trailers(trailers);
                }
                self.finish_if_over();
            }
            Some(Err(error)) => {
                if let Some(active) = &mut self.active {
                    active.broke_off(error);
                }
            }
            None => self.finish(),
        }
        Poll::Ready(frame)
    }

    /// The next part of the compressed form. Whenever nothing more comes for now, all that went in comes out.
    fn poll_encoded(
        &mut self,
        encoder: &mut Encoder,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseFailed>>> {
        loop {
            if encoder.is_finished() {
                return Poll::Ready(encoder.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            let encoded = match self.poll_content(cx) {
                Poll::Pending => match encoder.flush() {
                    Ok(None) => return Poll::Pending,
                    flushed => flushed.map(Option::unwrap_or_default),
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => encoder.write(&data),
                    Err(frame) => {
                        encoder.trailers = frame.into_trailers().ok();
                        encoder.finish()
                    }
                },
                Poll::Ready(None) => encoder.finish(),
            };
            match encoded {
                Ok(data) if data.is_empty() => {}
                encoded => {
                    return Poll::Ready(Some(encoded.map(Frame::data).map_err(ResponseFailed::Compression)));
                }
            }
        }
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
        let (Content::Instance(relay), Some(active)) = (&mut self.content, &mut self.active) else { return };
        active.complete();
        match std::mem::take(&mut relay.source) {
            ResponseSource::H1(conn) => active.give_back(conn, relay.worker, relay.pool_size),
            tunnel @ ResponseSource::Tunnel(_) => relay.source = tunnel,
            ResponseSource::H2(_) | ResponseSource::Over => {}
        }
    }
}

impl ResponseSource {
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

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseFailed>>> {
        match self {
            Self::H1(conn) => conn.http.poll_frame(cx).map_err(|error| ResponseFailed::Broken(error.into())),
            Self::H2(body) => body.poll_frame(cx).map_err(|error| ResponseFailed::Broken(error.into())),
            Self::Tunnel(_) | Self::Over => Poll::Ready(None),
        }
    }
}

impl Relay {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseFailed>>> {
        match self.source.poll_frame(cx) {
            Poll::Ready(Some(_)) if self.instance.was_removed_before(self.removed) => {
                Poll::Ready(Some(Err(ResponseFailed::Removed)))
            }
            Poll::Ready(frame) => {
                self.timer = None;
                Poll::Ready(frame)
            }
            Poll::Pending => self.wait(cx),
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseFailed>>> {
        let check = self.removed.min(REMOVAL_CHECK);
        let timer =
            self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.idle.unwrap_or(check))));
        loop {
            ready!(timer.as_mut().poll(cx));
            if self.idle.is_some() {
                return Poll::Ready(Some(Err(ResponseFailed::Silent)));
            }
            // A live stream may be silent for any time, but not outlive its instance for long.
            if self.instance.was_removed_before(self.removed) {
                return Poll::Ready(Some(Err(ResponseFailed::Removed)));
            }
            timer.as_mut().reset(tokio::time::Instant::now() + check);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseFailed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseFailed>>> {
        let this = &mut *self;
        let encoder = match &mut this.content {
            Content::Instance(relay) => relay.encoder.take(),
            Content::Text(_) => None,
        };
        let frame = match encoder {
            None => ready!(this.poll_content(cx)),
            Some(mut encoder) => {
                let frame = this.poll_encoded(&mut encoder, cx);
                if let Content::Instance(relay) = &mut this.content {
                    relay.encoder = Some(encoder);
                }
                ready!(frame)
            }
        };
        if let Some(Ok(frame)) = &frame
            && let (Some(data), Some(active)) = (frame.data_ref(), &mut this.active)
            && matches!(this.content, Content::Instance(_))
        {
            active.sent(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Text(text) => text.as_ref().is_none_or(Bytes::is_empty),
            Content::Instance(relay) => match &relay.encoder {
                Some(encoder) => encoder.is_over(),
                None => relay.source.is_over(),
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Instance(relay) if relay.encoder.is_some() => SizeHint::default(),
            Content::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Content::Instance(relay) => relay.source.size_hint(),
        }
    }
}
