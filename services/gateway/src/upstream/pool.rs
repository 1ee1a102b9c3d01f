//! An instance's connections on one worker.
//!
//! An HTTP/1 connection is not a task: whoever holds it drives it, the request while it waits for the reply and the
//! reply's body until its end. That saves the hand-over between tasks that costs most in a proxy, and lets a request
//! know how far it came. An idle connection is driven by nobody; it is polled once when it is taken, and once in a
//! while by [`Pool::sweep`], which shows whether the instance has closed it.
//!
//! A request that finds none idle waits for whichever is there first: one that another request gives back, or a new
//! one. How many are being made at once is bounded, or a burst would overflow the instance's accept queue and be
//! punished with the kernel's whole second of waiting.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::connect::Link;
use crate::error::Cause;
use crate::proxy::upload::Upload;

pub(crate) type Sender = http1::SendRequest<Upload>;
pub(crate) type Connection = http1::Connection<TokioIo<Link>, Upload>;
pub(crate) type H2Sender = http2::SendRequest<Upload>;
/// What a request that waits for a connection gets.
pub(crate) type Waited = Result<Conn, Cause>;

/// Connections that are made at once, per instance and worker: half of the smallest accept queue in common use.
const MAX_CONNECTING: usize = 64;

/// An HTTP/1 connection to an instance.
pub(crate) struct Conn {
    pub(crate) sender: Sender,
    pub(crate) link: Link,
    /// `None` once it has ended.
    connection: Option<Pin<Box<Connection>>>,
    /// Whether it has carried a request before.
    pub(crate) reused: bool,
    since: Instant,
}

impl Conn {
    pub(crate) fn new((sender, connection, link): (Sender, Connection, Link), now: Instant) -> Self {
        Self { sender, link, connection: Some(Box::pin(connection)), reused: false, since: now }
    }

    /// Moves bytes in both directions. Ready once the connection has ended.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(()) };
        let ended = connection.as_mut().poll(cx).map(drop);
        if ended.is_ready() {
            self.connection = None;
        }
        ended
    }

    /// Waits until another request can be sent; false where the connection ends before that.
    pub(crate) fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match self.poll(cx) {
            Poll::Ready(()) => Poll::Ready(false),
            Poll::Pending if self.sender.is_ready() => Poll::Ready(true),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether another request can be sent.
    fn is_usable(&mut self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop())).is_pending() && self.sender.is_ready()
    }
}

/// An instance's connections on one worker.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Idle connections, the one used last at the end.
    idle: Vec<Conn>,
    h2: Option<H2Sender>,
    /// Requests that wait for a connection, the longest wait first.
    waiting: VecDeque<oneshot::Sender<Waited>>,
    /// Connections that are being made.
    connecting: usize,
}

impl Pool {
    /// Waits for a connection. The caller must start one where the second value is true, and report what became of
    /// it with [`Pool::connected`].
    pub(crate) fn wait(&self) -> (oneshot::Receiver<Waited>, bool) {
        let (give, get) = oneshot::channel();
        let mut inner = self.inner();
        inner.waiting.push_back(give);
        (get, inner.may_start())
    }

    /// Takes a connection that was started, or the reason why there is none. Says whether to start another.
    pub(crate) fn connected(&self, made: Waited, now: Instant, max: usize) -> bool {
        let refused = made.as_ref().err() == Some(&Cause::ConnectRefused);
        match made {
            Ok(conn) => self.offer(conn, now, max),
            Err(cause) => {
                let mut inner = self.inner();
                // Nobody listens there: whoever waits learns it now. Anything else may be for one alone.
                while let Some(waiting) = inner.waiting.pop_front() {
                    if waiting.send(Err(cause)).is_ok() && !refused {
                        break;
                    }
                }
            }
        }
        let mut inner = self.inner();
        inner.connecting = inner.connecting.saturating_sub(1);
        inner.may_start()
    }

    /// An idle connection, the one used last. `surely`: ask the kernel too whether it is still open.
    pub(crate) fn take(&self, now: Instant, max_idle: Duration, surely: bool) -> Option<Conn> {
        loop {
            let mut conn = self.inner().idle.pop()?;
            let fresh_enough = now.saturating_duration_since(conn.since) < max_idle;
            if fresh_enough && conn.is_usable() && (!surely || conn.link.is_quiet()) {
                conn.link.next_request();
                return Some(conn);
            }
        }
    }

    /// Takes a connection back for the next request, unless there are `max` already.
    pub(crate) fn put(&self, mut conn: Conn, now: Instant, max: usize) {
        if conn.connection.is_some() {
            conn.reused = true;
            self.offer(conn, now, max);
        }
    }

    /// Gives a connection to whoever waits the longest, or keeps it.
    fn offer(&self, mut conn: Conn, now: Instant, max: usize) {
        conn.since = now;
        while let Some(waiting) = self.next_waiting() {
            if !conn.is_usable() {
                // The next to come back is for whoever this would have been for.
                self.inner().waiting.push_front(waiting);
                return;
            }
            conn.link.next_request();
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
            let keep =
                |conn: &mut Conn| now.saturating_duration_since(conn.since) < max_idle && conn.is_usable();
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

    fn next_waiting(&self) -> Option<oneshot::Sender<Waited>> {
        self.inner().waiting.pop_front()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whether a connection more is needed and allowed; counts it.
    fn may_start(&mut self) -> bool {
        self.waiting.retain(|waiting| !waiting.is_closed());
        let start = self.connecting < self.waiting.len().min(MAX_CONNECTING);
        self.connecting += usize::from(start);
        start
    }
}
