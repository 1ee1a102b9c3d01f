//! A reply on an HTTP/2 stream, as the worker's sweep sees it.
//!
//! HTTP/2 has a window for each stream. While a client keeps one shut, its socket is not blocked and nobody asks the
//! reply for its next frame, so a reply can't see for itself that it is not read. Its holder is the sweep's business
//! then: it takes the reply away, and with it go the request's place and the connection to the instance. What is left
//! is a frame at most, until the client goes.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::peer::Peer;
use crate::proxy::reply::{Reply, ReplyFailed};

/// The body of a reply on a stream.
pub(super) struct Stream {
    peer: Arc<Peer>,
    held: Arc<Held>,
}

/// What the stream and the sweep share.
pub(super) struct Held {
    /// `None` once it was taken away.
    reply: Mutex<Option<Reply>>,
    /// Since when the client could read on, in milliseconds since the gateway's start; 0 while the instance is waited
    /// for.
    unread_since: AtomicU64,
}

/// Why a stream breaks off.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamFailed {
    #[error(transparent)]
    Reply(#[from] ReplyFailed),
    #[error("the client did not read its reply")]
    Unread,
}

impl Stream {
    pub(super) fn new(reply: Reply, peer: &Arc<Peer>) -> Self {
        let held = Arc::new(Held { reply: Mutex::new(Some(reply)), unread_since: AtomicU64::new(now(peer)) });
        peer.watch(&held);
        Self { peer: peer.clone(), held }
    }
}

fn now(peer: &Peer) -> u64 {
    peer.gateway.millis(Instant::now()).max(1)
}

impl Held {
    /// Lets go of a reply that has not been read on for `patience`. Says whether there is still one.
    pub(super) fn look_over(&self, now: u64, patience: Duration) -> bool {
        let since = self.unread_since.load(Relaxed);
        if since == 0 || u128::from(now.saturating_sub(since)) < patience.as_millis() {
            return true;
        }
        let reply = self.reply().take();
        drop(reply); // without the lock
        false
    }

    fn reply(&self) -> MutexGuard<'_, Option<Reply>> {
        self.reply.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = StreamFailed;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamFailed>>> {
        let mut reply = self.held.reply();
        let Some(reply) = reply.as_mut() else { return Poll::Ready(Some(Err(StreamFailed::Unread))) };
        let frame = Pin::new(reply).poll_frame(cx);
        let since = if frame.is_pending() { 0 } else { now(&self.peer) };
        self.held.unread_since.store(since, Relaxed);
        frame.map(|frame| frame.map(|frame| frame.map_err(StreamFailed::Reply)))
    }

    fn is_end_stream(&self) -> bool {
        self.held.reply().as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.held.reply().as_ref().map(Body::size_hint).unwrap_or_default()
    }
}
