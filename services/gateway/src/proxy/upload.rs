//! A request's body on its way to an instance: counted, timed, and kept while it may have to be sent again.
//!
//! All attempts of one request share one [`Shared`]; each is given an [`Upload`] that starts over with what was kept.
//! Bodies are never gathered: what exceeds the limit for keeping is passed on and forgotten, and the request can't be
//! tried again then. What goes wrong on the client's side is remembered as the client's, so that no instance is
//! blamed for it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::error::Cause;

/// A slow body is measured from here on.
const RATE_GRACE: Duration = Duration::from_secs(10);

/// What holds for one request's body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Most bytes; 0 is no limit.
    pub(crate) size: u64,
    /// Fewest bytes per second; 0 is no limit.
    pub(crate) rate: u64,
    /// Longest silence.
    pub(crate) idle: Duration,
    /// Most bytes to keep.
    pub(crate) keep: usize,
}

/// Why a body could not be sent; [`Shared::fault`] says it to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request's body failed")]
pub(crate) struct UploadFailed;

/// The body of one attempt.
pub(crate) enum Upload {
    /// There is none.
    Empty,
    /// Frames that were kept, then the rest.
    Streamed { shared: Shared, next: usize },
}

/// The body of all attempts of a request.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<State>>);

struct State {
    body: Incoming,
    rules: Rules,
    kept: Vec<Kept>,
    kept_size: usize,
    /// What was sent is still here.
    replayable: bool,
    received: u64,
    ended: Option<Instant>,
    fault: Option<Cause>,
    /// Since when the client is waited for.
    waiting: Option<Instant>,
    /// How long it was waited for in all, before that.
    waited: Duration,
    /// Made when the client is waited for the first time.
    timer: Option<Pin<Box<Sleep>>>,
    /// Nothing is read before this opens: `Expect: 100-continue`.
    gate: Option<Gate>,
}

#[derive(Clone)]
enum Kept {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

/// Holds the body back until the instance wants it, or has not said anything for a second.
type Gate = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Shared {
    pub(crate) fn new(body: Incoming, rules: Rules) -> Self {
        Self(Arc::new(Mutex::new(State {
            body,
            rules,
            kept: Vec::new(),
            kept_size: 0,
            replayable: true,
            received: 0,
            ended: None,
            fault: None,
            waiting: None,
            waited: Duration::ZERO,
            timer: None,
            gate: None,
        })))
    }

    /// The body for another attempt.
    pub(crate) fn upload(&self) -> Upload {
        Upload::Streamed { shared: self.clone(), next: 0 }
    }

    /// Nothing is read from the client before `gate` is done.
    pub(crate) fn hold_back(&self, gate: impl Future<Output = ()> + Send + 'static) {
        self.state().gate = Some(Box::pin(gate));
    }

    /// What the client did wrong.
    pub(crate) fn fault(&self) -> Option<Cause> {
        self.state().fault
    }

    /// Whether all that was read so far can be sent again.
    pub(crate) fn is_replayable(&self) -> bool {
        self.state().replayable
    }

    /// When the last of it was read.
    pub(crate) fn ended(&self) -> Option<Instant> {
        self.state().ended
    }

    /// Bytes read from the client.
    pub(crate) fn received(&self) -> u64 {
        self.state().received
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        next: &mut usize,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadFailed>>> {
        if let Some(kept) = self.kept.get(*next) {
            *next += 1;
            return Poll::Ready(Some(Ok(match kept.clone() {
                Kept::Data(data) => Frame::data(data),
                Kept::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        if self.fault.is_some() {
            return Poll::Ready(Some(Err(UploadFailed)));
        }
        if self.ended.is_some() {
            return Poll::Ready(None);
        }
        if let Some(gate) = &mut self.gate {
            ready!(gate.as_mut().poll(cx));
            self.gate = None;
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => self.wait(cx),
            Poll::Ready(None) => {
                self.ended = Some(Instant::now());
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_))) => self.fail(Cause::BadBody),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(since) = self.waiting.take() {
                    self.waited += since.elapsed();
                }
                self.take(&frame, next);
                if self.rules.size > 0 && self.received > self.rules.size {
                    return self.fail(Cause::BodyTooLarge);
                }
                if self.body.is_end_stream() {
                    self.ended = Some(Instant::now());
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn take(&mut self, frame: &Frame<Bytes>, next: &mut usize) {
        let (kept, size) = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => (Kept::Data(data.clone()), data.len()),
            (_, Some(trailers)) => (Kept::Trailers(trailers.clone()), 0),
            _ => return,
        };
        self.received += size as u64;
        self.kept_size += size;
        if self.replayable && self.kept_size <= self.rules.keep {
            self.kept.push(kept);
            *next += 1;
        } else {
            self.replayable = false;
            self.kept = Vec::new();
            *next = 0;
        }
    }

    /// The client has nothing right now: for how long may that go on? Only the time spent waiting for it counts, not
    /// the time that a slow instance takes.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFailed>>> {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let step = self.rules.idle.min(RATE_GRACE);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(step)));
        loop {
            ready!(timer.as_mut().poll(cx));
            let silence = since.elapsed();
            let waited = self.waited + silence;
            // A client that sends a byte now and then is silent in all but name.
            let too_slow = waited >= RATE_GRACE && self.received < self.rules.rate * waited.as_secs();
            if silence >= self.rules.idle || too_slow {
                return self.fail(Cause::RequestTimeout);
            }
            let next = (self.rules.idle - silence).min(RATE_GRACE);
            timer.as_mut().reset(tokio::time::Instant::now() + next);
        }
    }

    fn fail(&mut self, fault: Cause) -> Poll<Option<Result<Frame<Bytes>, UploadFailed>>> {
        self.fault = Some(fault);
        Poll::Ready(Some(Err(UploadFailed)))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadFailed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadFailed>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Streamed { shared, next } => shared.state().poll_frame(cx, next),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed { shared, next } => {
                let state = shared.state();
                *next >= state.kept.len() && state.ended.is_some()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            // What is kept was read before; the whole is known only from the client's Content-Length, which goes on
            // as it came.
            Self::Streamed { .. } => SizeHint::default(),
        }
    }
}
