//! A request's body on its way to an instance: counted, timed, and kept while it may have to be sent again.
//!
//! All attempts of one request share one [`Shared`]; each is given an [`Upload`] that starts over with what was kept,
//! and that fails once there is a later one.
//! Bodies are never gathered: what exceeds the limit for keeping is passed on and forgotten, and the request can't be
//! tried again then. What goes wrong on the client's side is remembered as the client's, so that no instance is
//! blamed for it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use self::kept::Kept;
use super::client_body::ClientBody;
use crate::error::Cause;
use crate::headers;

mod kept;

/// A slow body is measured from here on, or from the longest silence on where that is shorter.
const RATE_GRACE: Duration = Duration::from_secs(10);

/// What holds for one request's body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Most bytes; 0 is no limit.
    pub(crate) size: u64,
    /// `None` on a live stream: there, silence is part of the request.
    pub(crate) pace: Option<Pace>,
    /// Most bytes to keep.
    pub(crate) keep: usize,
}

/// How slowly a body may come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Fewest bytes per second; 0 is no limit.
    pub(crate) rate: u64,
    /// Longest silence.
    pub(crate) idle: Duration,
}

/// Why a body could not be sent; [`Shared::fault`] says it to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request's body failed")]
pub(crate) struct UploadFailed;

/// The body of one attempt.
pub(crate) enum Upload {
    /// There is none.
    Empty,
    /// What was kept, then the rest.
    Streamed { shared: Shared, attempt: u32 },
}

/// The body of all attempts of a request.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<State>>);

struct State {
    body: ClientBody,
    rules: Rules,
    kept: Kept,
    /// The present attempt: only that one reads.
    attempt: u32,
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

/// Holds the body back until the instance wants it, or has not said anything for a second.
type Gate = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Shared {
    pub(crate) fn new(body: ClientBody, rules: Rules) -> Self {
        Self(Arc::new(Mutex::new(State {
            body,
            rules,
            kept: Kept::new(rules.keep),
            attempt: 0,
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
        let attempt = self.state().begin_attempt();
        Upload::Streamed { shared: self.clone(), attempt }
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
        self.state().kept.is_whole()
    }

    /// The instance replies, and there will be no other attempt: nothing more is kept, and a client that was not asked
    /// for its body by now never is.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        state.kept.forget();
        if let Some(gate) = &mut state.gate {
            *gate = Box::pin(std::future::pending());
        }
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
    fn begin_attempt(&mut self) -> u32 {
        self.kept.rewind();
        self.attempt = self.attempt.wrapping_add(1);
        self.attempt
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFailed>>> {
        if let Some(kept) = self.kept.next() {
            return Poll::Ready(Some(Ok(kept)));
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
        match self.body.poll_frame(cx) {
            Poll::Pending => self.wait(cx),
            Poll::Ready(None) => {
                self.ended = Some(Instant::now());
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_))) => self.fail(Cause::BadBody),
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    headers::trailers(trailers);
                }
                if let Some(since) = self.waiting.take() {
                    self.waited += since.elapsed();
                }
                self.received += frame.data_ref().map_or(0, |data| data.len() as u64);
                self.kept.note(&frame);
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

    /// The client has nothing right now: for how long may that go on? Only the time spent waiting for it counts, not
    /// the time that a slow instance takes.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFailed>>> {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let Some(pace) = self.rules.pace else { return Poll::Pending };
        let grace = pace.idle.min(RATE_GRACE);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(grace)));
        loop {
            ready!(timer.as_mut().poll(cx));
            let silence = since.elapsed();
            let waited = self.waited + silence;
            // A client that sends a byte now and then is silent in all but name.
            let expected = pace.rate as f64 * waited.as_secs_f64();
            let too_slow = waited >= grace && (self.received as f64) < expected;
            if silence >= pace.idle || too_slow {
                return self.fail(Cause::RequestTimeout);
            }
            timer.as_mut().reset(tokio::time::Instant::now() + (pace.idle - silence).min(grace));
        }
    }

    fn fail(&mut self, fault: Cause) -> Poll<Option<Result<Frame<Bytes>, UploadFailed>>> {
        self.fault = Some(fault);
        self.kept.forget();
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
            Self::Streamed { shared, attempt } => {
                let mut state = shared.state();
                if state.attempt == *attempt {
                    state.poll_frame(cx)
                } else {
                    Poll::Ready(Some(Err(UploadFailed)))
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed { shared, attempt } => {
                let state = shared.state();
                state.attempt == *attempt && state.kept.is_given() && state.ended.is_some()
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
