//! A request's body while it is read from the client's connection.
//!
//! Whoever wants the body reads it, and has the connection's reading side for as long: it is lent out with the body and
//! comes back at its end. Where nobody wants the rest (the request was refused, or has failed), it is read on for a while
//! all the same: a server that closes while the client still sends resets the connection, and the client may never see
//! why (RFC 9112, 9.6). Bounded in bytes and time.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::Frame;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::Sleep;

use crate::http1::decoder::{Decoder, Malformed};
use crate::http1::scratch;

/// Most bytes that are read and thrown away.
const MAX_UNWANTED: usize = 64 << 20;
/// Longest time that is spent on them.
const UNWANTED_TIME: Duration = Duration::from_secs(5);

/// A connection's reading side.
pub(super) struct Inlet {
    pub(super) half: OwnedReadHalf,
    /// Read and not yet used.
    pub(super) bytes: Bytes,
}

impl Inlet {
    /// Reads once, in place of the bytes that are here. False where the client has ended its side.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.bytes = ready!(scratch::poll_read(&mut self.half, cx))?;
        Poll::Ready(Ok(!self.bytes.is_empty()))
    }
}

/// Lends the reading side out for a body; `holds_back`: the client waits to be asked for it.
pub(super) fn lend(inlet: Inlet, decoder: Decoder, holds_back: bool) -> (Lent, RequestBody) {
    let ask = if holds_back { Ask::Waits } else { Ask::Done };
    let state = State { inlet: Some(inlet), decoder, ask, unwanted: false, failed: false };
    let shared = Arc::new(Shared { state: Mutex::new(state), waker: AtomicWaker::new() });
    (Lent { shared: shared.clone(), discarded: 0, timer: None }, RequestBody(shared))
}

/// The body, for whoever wants it.
pub(crate) struct RequestBody(Arc<Shared>);

/// The same for the connection, which waits for its reading side.
pub(super) struct Lent {
    shared: Arc<Shared>,
    discarded: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What came back.
pub(super) struct Back {
    pub(super) inlet: Inlet,
    /// The body was read to its end, so that a request may follow.
    pub(super) whole: bool,
}

/// Why a body is not whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyFailed {
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("the connection ended within the body")]
    End,
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

struct Shared {
    state: Mutex<State>,
    /// The connection's task, while it is not itself at work.
    waker: AtomicWaker,
}

struct State {
    /// `None` once it is back.
    inlet: Option<Inlet>,
    decoder: Decoder,
    ask: Ask,
    /// Nobody reads it any more.
    unwanted: bool,
    failed: bool,
}

/// Whether the client waits to be asked for the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Waits,
    /// It is to be asked now.
    Due,
    /// It was asked, or sends unasked.
    Done,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        let Some(inlet) = &mut self.inlet else { return Poll::Ready(None) };
        loop {
            match self.decoder.decode(&mut inlet.bytes) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if self.decoder.is_over() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            match ready!(inlet.poll_read(cx)) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Some(Err(BodyFailed::End))),
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }
}

impl RequestBody {
    /// The next piece; `None` after the last.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        let mut state = self.0.state();
        if state.failed {
            return Poll::Ready(Some(Err(BodyFailed::End)));
        }
        if state.ask == Ask::Waits {
            state.ask = Ask::Due;
            self.0.waker.wake();
        }
        let frame = ready!(state.poll_frame(cx));
        state.ask = Ask::Done;
        state.failed = matches!(frame, Some(Err(_)));
        if state.failed || state.decoder.is_over() {
            self.0.waker.wake();
        }
        Poll::Ready(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.0.state().decoder.is_over()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.0.state().unwanted = true;
        self.0.waker.wake();
    }
}

impl Lent {
    /// The connection's task is at work, and will look by itself when it is done: no need to wake it.
    pub(super) fn attended(&self) {
        self.shared.waker.take();
    }

    /// Whether the client is to be asked for its body now. True once.
    pub(super) fn asks(&self) -> bool {
        let mut state = self.shared.state();
        let is_due = state.ask == Ask::Due;
        if is_due {
            state.ask = Ask::Done;
        }
        is_due
    }

    /// Whether the client still waits to be asked for its body, even if that was about to be done.
    pub(super) fn is_held_back(&self) -> bool {
        self.shared.state().ask != Ask::Done
    }

    /// The client will not be asked any more: whoever waits for the body waits in vain.
    pub(super) fn give_up(&self) {
        self.shared.state().failed = true;
    }

    /// Ready when nobody needs the reading side any more.
    pub(super) fn poll_back(&mut self, cx: &mut Context<'_>) -> Poll<Back> {
        self.shared.waker.register(cx.waker());
        let mut state = self.shared.state();
        let whole = loop {
            if state.decoder.is_over() {
                break true;
            }
            // Who holds back sends nothing, and reading would not tell it to.
            if state.failed || (state.unwanted && state.ask != Ask::Done) {
                break false;
            }
            if !state.unwanted {
                return Poll::Pending;
            }
            match state.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.discarded += frame.data_ref().map_or(0, Bytes::len);
                    state.failed = self.discarded > MAX_UNWANTED;
                }
                Poll::Ready(Some(Err(_))) => state.failed = true,
                Poll::Ready(None) => {}
                Poll::Pending => {
                    let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(UNWANTED_TIME)));
                    ready!(timer.as_mut().poll(cx));
                    state.failed = true;
                }
            }
        };
        match state.inlet.take() {
            Some(inlet) => Poll::Ready(Back { inlet, whole }),
            None => Poll::Pending, // it is back already
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A connection's reading side where `bytes` were read already, and its client.
    async fn inlet(bytes: &'static [u8]) -> (Inlet, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (half, _) = listener.accept().await.unwrap().0.into_split();
        (Inlet { half, bytes: Bytes::from_static(bytes) }, client)
    }

    #[tokio::test]
    async fn a_client_waits_until_it_is_asked_or_has_sent_something() {
        let mut cx = Context::from_waker(Waker::noop());
        let (silent, _client) = inlet(b"").await;
        let (lent, mut body) = lend(silent, Decoder::of_length(2), true);
        assert!(lent.is_held_back() && !lent.asks());
        assert!(body.poll_frame(&mut cx).is_pending());
        assert!(lent.is_held_back(), "that it is to be asked does not mean that it was");
        assert!(lent.asks() && !lent.asks() && !lent.is_held_back());

        let (sending, _client) = inlet(b"a").await;
        let (lent, mut body) = lend(sending, Decoder::of_length(2), true);
        assert!(body.poll_frame(&mut cx).is_ready());
        assert!(!lent.is_held_back() && !lent.asks());
    }
}
