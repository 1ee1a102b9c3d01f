//! An instance's connections on one worker.
//!
//! An idle HTTP/1 connection is driven by nobody; whether the instance has closed it is looked at when it is taken, and
//! once in a while by [`Pool::sweep`].
//!
//! A request that finds none idle waits for whichever is there first: one that another request gives back, or a new
//! one. How many are being made at once is bounded, or a burst would overflow the instance's accept queue and be
//! punished with the kernel's whole second of waiting.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http2;
use tokio::sync::oneshot;

use super::h1::Conn;
use crate::error::Cause;
use crate::proxy::upload::Upload;

pub(crate) type H2Sender = http2::SendRequest<Upload>;
/// What a request that waits for a connection gets.
pub(crate) type Waited = Result<Box<Conn>, Cause>;

/// Connections that are made at once, per instance and worker: half of the smallest accept queue in common use.
const MAX_CONNECTING: usize = 64;

/// An instance's connections on one worker.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Idle connections, the one used last at the end.
    #[expect(clippy::vec_box, reason = "they go from hand to hand; what moves should be small")]
    idle: Vec<Box<Conn>>,
    h2: Option<H2Sender>,
    /// Requests that wait for a connection, the longest wait first.
    waiting: VecDeque<(Instant, oneshot::Sender<Waited>)>,
    /// Connections that are being made.
    connecting: usize,
}

impl Pool {
    /// Waits for a connection. The caller must start one where the second value is true, and report what became of
    /// it with [`Pool::connected`].
    pub(crate) fn wait(&self, now: Instant) -> (oneshot::Receiver<Waited>, bool) {
        let (give, get) = oneshot::channel();
        let mut inner = self.inner();
        inner.waiting.push_back((now, give));
        (get, inner.may_start())
    }

    /// Takes a connection that was started, or the reason why there is none. Says whether to start another.
    pub(crate) fn connected(&self, made: Waited, now: Instant, timeout: Duration, max: usize) -> bool {
        match made {
            Ok(conn) => self.offer(conn, now, max),
            Err(cause) => {
                let mut inner = self.inner();
                let mut is_told = false;
                // Nobody listens there: whoever waits learns it now. Anything else may be for one alone, but nobody waits
                // for longer than a connection may take.
                while let Some((since, waiting)) = inner.waiting.pop_front() {
                    let overdue = now.saturating_duration_since(since) >= timeout;
                    if is_told && !overdue && cause != Cause::ConnectRefused {
                        inner.waiting.push_front((since, waiting));
                        break;
                    }
                    is_told |= waiting.send(Err(cause)).is_ok();
                }
            }
        }
        let mut inner = self.inner();
        inner.connecting = inner.connecting.saturating_sub(1);
        inner.may_start()
    }

    /// An idle connection, the one used last. `surely`: ask the kernel too whether it is still open.
    pub(crate) fn take(&self, now: Instant, max_idle: Duration, surely: bool) -> Option<Box<Conn>> {
        loop {
            let conn = self.inner().idle.pop()?;
            let is_fresh = now.saturating_duration_since(conn.since) < max_idle;
            if is_fresh && if surely { conn.is_surely_open() } else { conn.is_open() } {
                return Some(conn);
            }
        }
    }

    /// Takes a connection back for the next request, unless there are `max` already.
    pub(crate) fn put(&self, mut conn: Box<Conn>, now: Instant, max: usize) {
        if conn.is_reusable() {
            conn.reused = true;
            self.offer(conn, now, max);
        }
    }

    /// Gives a connection to whoever waits the longest, or keeps it.
    fn offer(&self, mut conn: Box<Conn>, now: Instant, max: usize) {
        conn.since = now;
        while let Some((since, waiting)) = self.next_waiting() {
            if !conn.is_open() {
                // The next to come back is for whoever this would have been for.
                self.inner().waiting.push_front((since, waiting));
                return;
            }
            match waiting.send(Ok(conn)) {
                Err(Ok(unwanted)) => conn = unwanted,
                _ => return,
            }
        }
        let mut inner = self.inner();
        if inner.idle.len() < max {
            inner.idle.push(conn);
        }
    }

    /// The HTTP/2 connection, where there is one that lives.
    pub(crate) fn h2(&self) -> Option<H2Sender> {
        self.inner().h2.clone().filter(|sender| !sender.is_closed())
    }

    pub(crate) fn set_h2(&self, sender: H2Sender) {
        self.inner().h2 = Some(sender);
    }

    /// Closes what has been idle for too long, and what the instance has closed.
    pub(crate) fn sweep(&self, now: Instant, max_idle: Duration) {
        // Dropped outside the lock: closing sockets takes its time.
        let swept: Vec<_> = {
            let mut inner = self.inner();
            let keep = |conn: &Conn| now.saturating_duration_since(conn.since) < max_idle && conn.is_open();
            if inner.h2.as_ref().is_some_and(H2Sender::is_closed) {
                inner.h2 = None;
            }
            inner.idle.extract_if(.., |conn| !keep(conn)).collect()
        };
        drop(swept);
    }

    /// Closes all that is idle. An HTTP/2 connection ends when its last request has.
    pub(crate) fn clear(&self) {
        let mut inner = self.inner();
        let (idle, h2) = (std::mem::take(&mut inner.idle), inner.h2.take());
        drop(inner);
        drop((idle, h2));
    }

    /// Idle HTTP/1 connections.
    pub(crate) fn len(&self) -> usize {
        self.inner().idle.len()
    }

    fn next_waiting(&self) -> Option<(Instant, oneshot::Sender<Waited>)> {
        self.inner().waiting.pop_front()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whether a connection more is needed and allowed; counts it.
    fn may_start(&mut self) -> bool {
        self.waiting.retain(|(_, waiting)| !waiting.is_closed());
        let start = self.connecting < self.waiting.len().min(MAX_CONNECTING);
        self.connecting += usize::from(start);
        start
    }
}
