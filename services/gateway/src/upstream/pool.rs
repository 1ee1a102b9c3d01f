//! An instance's connections on one worker.
//!
//! Nothing drives an idle HTTP/1 connection. Whether the instance has closed it is checked when it is taken, and now
//! and then by [`Pool::sweep`].
//!
//! A request that finds none idle waits for whichever comes first: one that another request gives back, or a new one.
//! How many connections are opened at once is bounded: a burst would overflow the instance's accept queue, and a SYN
//! that is dropped there is sent again only after a second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::conn::Conn;
use super::h2_conn::H2Conn;
use crate::error::Cause;

/// The result that a waiting request gets.
pub(crate) type ConnResult = Result<Box<Conn>, Cause>;

/// Maximum number of connections being opened at once, per instance and worker: half of the smallest accept queue in
/// common use.
const MAX_CONNECTING: usize = 64;

/// Maximum number of HTTP/2 connections, per instance and worker. Requests beyond the streams of all of them wait.
const MAX_H2: usize = 16;

/// An instance's connections on one worker.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Connections>);

#[derive(Default)]
struct Connections {
    /// Idle connections, the most recently used last.
    #[expect(clippy::vec_box, reason = "connections are handed around; moving a box is cheap")]
    idle: Vec<Box<Conn>>,
    h2: Vec<H2Conn>,
    /// Requests that wait for a connection, and since when; the longest wait first.
    waiters: VecDeque<(Instant, oneshot::Sender<ConnResult>)>,
    /// Connections that are being opened.
    connecting: usize,
}

impl Pool {
    /// Queues for a connection. If the second value is true, the caller must open one and report it to
    /// [`Pool::connected`].
    pub(crate) fn wait(&self, now: Instant) -> (oneshot::Receiver<ConnResult>, bool) {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.0.lock();
        inner.waiters.push_back((now, sender));
        (receiver, inner.may_connect())
    }

    /// Takes a connection that was opened, or why it failed. Returns whether to open another.
    pub(crate) fn connected(&self, opened: ConnResult, now: Instant, timeout: Duration, max: usize) -> bool {
        match opened {
            Ok(conn) => self.offer(conn, now, max),
            Err(cause) => {
                let mut inner = self.0.lock();
                let mut reported = false;
                // A refusal concerns every waiter: nothing listens there. Any other failure goes to the one that waited
                // the longest, and to those that have waited for the whole timeout.
                while let Some((since, waiter)) = inner.waiters.pop_front() {
                    let overdue = now.saturating_duration_since(since) >= timeout;
                    if reported && !overdue && cause != Cause::ConnectRefused {
                        inner.waiters.push_front((since, waiter));
                        break;
                    }
                    reported |= waiter.send(Err(cause)).is_ok();
                }
            }
        }
        let mut inner = self.0.lock();
        inner.connecting = inner.connecting.saturating_sub(1);
        inner.may_connect()
    }

    /// An idle connection, the most recently used. `probe`: ask the kernel too whether it is still open.
    pub(crate) fn take(&self, now: Instant, max_idle: Duration, probe: bool) -> Option<Box<Conn>> {
        loop {
            let mut conn = self.0.lock().idle.pop()?;
            let is_fresh = now.saturating_duration_since(conn.since) < max_idle;
            if is_fresh && if probe { conn.probe() } else { conn.is_open() } {
                return Some(conn);
            }
        }
    }

    /// Takes a connection back, and keeps it unless `max` are idle already.
    pub(crate) fn put(&self, mut conn: Box<Conn>, now: Instant, max: usize) {
        if conn.http.is_reusable() {
            conn.reused = true;
            self.offer(conn, now, max);
        }
    }

    /// Gives a connection to the request that has waited the longest, or keeps it.
    fn offer(&self, mut conn: Box<Conn>, now: Instant, max: usize) {
        conn.since = now;
        while let Some((since, waiter)) = self.next_waiter() {
            if !conn.is_open() {
                // This request is first in line for the next connection.
                self.0.lock().waiters.push_front((since, waiter));
                return;
            }
            match waiter.send(Ok(conn)) {
                Err(Ok(unwanted)) => conn = unwanted,
                _ => return,
            }
        }
        let mut inner = self.0.lock();
        if inner.idle.len() < max {
            inner.idle.push(conn);
        }
    }

    /// The HTTP/2 connection for the next request: one with room for another stream or, if there are as many as may be,
    /// the one with the fewest requests. `None` if one is to be opened.
    pub(crate) fn h2(&self) -> Option<H2Conn> {
        let mut inner = self.0.lock();
        inner.h2.retain(|conn| !conn.is_closed());
        let has_room = inner.h2.iter().find(|conn| conn.has_room());
        let waits =
            || inner.h2.iter().min_by_key(|conn| conn.requests()).filter(|_| inner.h2.len() >= MAX_H2);
        has_room.or_else(waits).cloned()
    }

    /// Keeps an HTTP/2 connection for other requests, too.
    pub(crate) fn add_h2(&self, conn: H2Conn) {
        let mut inner = self.0.lock();
        if inner.h2.len() < MAX_H2 {
            inner.h2.push(conn);
        }
    }

    /// Closes connections that have been idle for too long, and those that the instance has closed.
    pub(crate) fn sweep(&self, now: Instant, max_idle: Duration) {
        // Closing sockets takes time: dropped after the lock is released.
        let swept: Vec<_> = {
            let mut inner = self.0.lock();
            inner.h2.retain(|conn| !conn.is_closed());
            let idle_time = |conn: &Conn| now.saturating_duration_since(conn.since);
            inner.idle.extract_if(.., |conn| idle_time(conn) >= max_idle || !conn.is_open()).collect()
        };
        drop(swept);
    }

    /// Closes all idle connections. An HTTP/2 connection closes after its last request.
    pub(crate) fn clear(&self) {
        let mut inner = self.0.lock();
        let (idle, h2) = (std::mem::take(&mut inner.idle), std::mem::take(&mut inner.h2));
        drop(inner);
        drop((idle, h2));
    }

    /// Idle HTTP/1 connections.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().idle.len()
    }

    // Its own function, so that the lock is not held in the body of the `while let`.
    fn next_waiter(&self) -> Option<(Instant, oneshot::Sender<ConnResult>)> {
        self.0.lock().waiters.pop_front()
    }
}

impl Connections {
    /// Whether another connection is needed and allowed; if so, it is counted.
    fn may_connect(&mut self) -> bool {
        self.waiters.retain(|(_, waiter)| !waiter.is_closed());
        let start = self.connecting < self.waiters.len().min(MAX_CONNECTING);
        self.connecting += usize::from(start);
        start
    }
}
