//! An instance's connections on one worker.
//!
//! An HTTP/1 connection is not a task: whoever holds it drives it, the request while it waits for the reply and the
//! reply's body until its end. That saves the hand-over between tasks that costs most in a proxy, and lets a request
//! know how far it came. An idle connection is driven by nobody; it is polled once when it is taken, and once in a
//! while by [`Pool::sweep`], which shows whether the instance has closed it.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;

use super::connect::Link;
use crate::proxy::upload::Upload;

pub(crate) type Sender = http1::SendRequest<Upload>;
pub(crate) type Connection = http1::Connection<TokioIo<Link>, Upload>;
pub(crate) type H2Sender = http2::SendRequest<Upload>;

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
}

impl Pool {
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

    /// Keeps a connection for the next request, unless there are `max` already.
    pub(crate) fn put(&self, mut conn: Conn, now: Instant, max: usize) {
        if conn.connection.is_none() {
            return;
        }
        conn.reused = true;
        conn.since = now;
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
        let all = std::mem::take(&mut *self.inner());
        drop(all);
    }

    /// Idle HTTP/1 connections.
    pub(crate) fn len(&self) -> usize {
        self.inner().idle.len()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
