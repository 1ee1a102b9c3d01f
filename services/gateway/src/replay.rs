//! A request's body on its way to an instance: counted, timed, and kept while it may have to be sent again.
//!
//! All attempts of a request share a [`ReplayState`]. Each gets a [`ReplayBody`] that starts with the bytes that were
//! kept, and that fails once there is a later one. A body is never buffered whole: one that exceeds the limit is passed
//! on, and its request can't be retried any more. Faults of the client are recorded as the client's, so that no
//! instance is blamed for them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Sleep;

use self::buffer::ReplayBuffer;
use crate::client_body::{ClientBody, ClientBodyError};
use crate::error::Cause;
use crate::headers;
use crate::memory::Charge;

mod buffer;

/// The rate of a body is measured after this time, or after the idle timeout if that is shorter.
const RATE_GRACE: Duration = Duration::from_secs(10);

/// The limits of one request's body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// Bytes; 0 is no limit.
    pub(crate) size: u64,
    /// `None` for a live stream, which may be silent for any time.
    pub(crate) pace: Option<BodyPace>,
    /// Bytes that are kept for another attempt.
    pub(crate) replay: usize,
}

/// The slowest pace at which a body may arrive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyPace {
    /// Minimum bytes per second; 0 is no limit.
    pub(crate) rate: u64,
    /// The longest time without a byte.
    pub(crate) idle: Duration,
}

/// The client's body could not be read to its end. [`ReplayState::fault`] has the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request's body failed")]
pub(crate) struct ReplayError;

/// The body of one attempt: the bytes that were kept, then the rest.
pub(crate) struct ReplayBody {
    state: ReplayState,
    attempt: u32,
}

/// The body of all attempts of a request.
#[derive(Clone)]
pub(crate) struct ReplayState(Arc<Mutex<SharedState>>);

struct SharedState {
    body: ClientBody,
    limits: BodyLimits,
    buffer: ReplayBuffer,
    /// The current attempt: only that one reads.
    attempt: u32,
    received: u64,
    ended: Option<Instant>,
    fault: Option<Cause>,
    /// Since when the client has been waited for.
    waiting: Option<Instant>,
    /// How long it was waited for before that, in total.
    waited: Duration,
    /// Created when the client is waited for the first time.
    timer: Option<Pin<Box<Sleep>>>,
    /// `Expect: 100-continue`: nothing is read before this is ready.
    gate: Option<Gate>,
}

type Gate = Pin<Box<dyn Future<Output = ()> + Send>>;

impl ReplayState {
    pub(crate) fn new(body: ClientBody, limits: BodyLimits, memory: Charge) -> Self {
        Self(Arc::new(Mutex::new(SharedState {
            body,
            limits,
            buffer: ReplayBuffer::new(limits.replay, memory),
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
    pub(crate) fn body(&self) -> ReplayBody {
        let attempt = self.0.lock().begin_attempt();
        ReplayBody { state: self.clone(), attempt }
    }

    /// Reads nothing from the client before `gate` is ready.
    pub(crate) fn hold_back(&self, gate: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().gate = Some(Box::pin(gate));
    }

    /// The client's fault, if the body failed because of it.
    pub(crate) fn fault(&self) -> Option<Cause> {
        self.0.lock().fault
    }

    /// Whether everything that was read so far can be sent again.
    pub(crate) fn is_replayable(&self) -> bool {
        self.0.lock().buffer.is_complete()
    }

    /// The instance responds, so this attempt is the last: nothing more is kept, and a client that still waits for
    /// `100 Continue` will not get it.
    pub(crate) fn end_replay(&self) {
        let mut state = self.0.lock();
        state.buffer.end_replay();
        if let Some(gate) = &mut state.gate {
            *gate = Box::pin(std::future::pending());
        }
    }

    /// When the last of it was read.
    pub(crate) fn ended(&self) -> Option<Instant> {
        self.0.lock().ended
    }

    /// How long the client has been waited for, in total.
    pub(crate) fn waited(&self) -> Duration {
        let state = self.0.lock();
        state.waited + state.waiting.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Nobody reads the body for now. False if there is no memory for what the client may send ahead.
    pub(crate) fn reserve_ahead(&self) -> bool {
        self.0.lock().body.reserve_ahead()
    }

    /// Whether the client has gone while nobody read.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.0.lock().body.is_cut_off()
    }

    /// Bytes read from the client.
    pub(crate) fn received(&self) -> u64 {
        self.0.lock().received
    }
}

impl SharedState {
    fn begin_attempt(&mut self) -> u32 {
        self.buffer.rewind();
        self.attempt = self.attempt.wrapping_add(1);
        self.attempt
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplayError>>> {
        if let Some(frame) = self.buffer.next() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if self.fault.is_some() {
            return Poll::Ready(Some(Err(ReplayError)));
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
            Poll::Ready(Some(Err(ClientBodyError::OutOfMemory))) => self.fail(Cause::Overloaded),
            Poll::Ready(Some(Err(_))) => self.fail(Cause::BadBody),
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    headers::trailers(trailers);
                }
                if let Some(since) = self.waiting.take() {
                    self.waited += since.elapsed();
                }
                self.received += frame.data_ref().map_or(0, |data| data.len() as u64);
                self.buffer.push(&frame);
                if self.limits.size > 0 && self.received > self.limits.size {
                    return self.fail(Cause::BodyTooLarge);
                }
                if self.body.is_end_stream() {
                    self.ended = Some(Instant::now());
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    /// Waits for the client, and fails once it has been too slow. Only the time spent waiting for the client counts,
    /// not the time that a slow instance takes.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplayError>>> {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let Some(pace) = self.limits.pace else { return Poll::Pending };
        let grace = pace.idle.min(RATE_GRACE);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(grace)));
        loop {
            ready!(timer.as_mut().poll(cx));
            let silence = since.elapsed();
            let waited = self.waited + silence;
            // A client that sends a byte now and then would never be idle.
            let expected = pace.rate as f64 * waited.as_secs_f64();
            let too_slow = waited >= grace && (self.received as f64) < expected;
            if silence >= pace.idle || too_slow {
                return self.fail(Cause::RequestTimeout);
            }
            timer.as_mut().reset(tokio::time::Instant::now() + (pace.idle - silence).min(grace));
        }
    }

    fn fail(&mut self, fault: Cause) -> Poll<Option<Result<Frame<Bytes>, ReplayError>>> {
        self.fault = Some(fault);
        self.buffer.end_replay();
        Poll::Ready(Some(Err(ReplayError)))
    }
}

impl Body for ReplayBody {
    type Data = Bytes;
    type Error = ReplayError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplayError>>> {
        let mut state = self.state.0.lock();
        if state.attempt == self.attempt { state.poll_frame(cx) } else { Poll::Ready(Some(Err(ReplayError))) }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.state.0.lock();
        state.attempt == self.attempt && state.buffer.is_drained() && state.ended.is_some()
    }

    /// Only the client's `Content-Length` tells the whole length, and that is passed on with the head.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
