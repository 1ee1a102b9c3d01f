use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::Context;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use tokio::sync::watch;

/// What the accept loop has to know of a connection, and may ask of it.
#[derive(Debug)]
pub(super) struct ConnectionState {
    pub(super) client: Arc<Client>,
    opened: Instant,
    /// Requests whose response is not wholly sent.
    in_flight: AtomicUsize,
    /// When the last response was sent, in milliseconds since `opened`.
    idle_since: AtomicU64,
    /// Whether a first request came.
    requested: AtomicBool,
    /// Whether the client is not reading what was written.
    stalled: AtomicBool,
    /// Whether the connection is beyond the limit, for now.
    reserved: watch::Sender<bool>,
    /// Whether the connection is to end as soon as nothing is left to read.
    closing: AtomicBool,
    /// Wakes the connection, which waits for something to read.
    reader: AtomicWaker,
}

/// A client address (for IPv6, a /64 network) with what it has open on a port.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    /// Connections, without those of the reserve.
    pub(super) connections: AtomicUsize,
    /// HTTP/2 requests in flight.
    pub(super) streams: AtomicUsize,
}

impl Client {
    pub(super) fn new(address: IpAddr) -> Self {
        Self { address, connections: AtomicUsize::new(0), streams: AtomicUsize::new(0) }
    }
}

impl ConnectionState {
    pub(super) fn new(client: Arc<Client>, reserved: bool) -> Self {
        Self {
            client,
            opened: Instant::now(),
            in_flight: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            requested: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            reserved: watch::Sender::new(reserved),
            closing: AtomicBool::new(false),
            reader: AtomicWaker::new(),
        }
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// How long the connection has had no request in flight; `None` if it has one.
    pub(super) fn idle(&self, now: Instant) -> Option<Duration> {
        if self.in_flight.load(Relaxed) > 0 || self.stalled.load(Relaxed) {
            return None;
        }
        let age = now.saturating_duration_since(self.opened);
        Some(age.saturating_sub(Duration::from_millis(self.idle_since.load(Relaxed))))
    }

    pub(super) fn requested(&self) -> bool {
        self.requested.load(Relaxed)
    }

    pub(super) fn set_stalled(&self, stalled: bool) {
        self.stalled.store(stalled, Relaxed);
    }

    /// Whether the connection is beyond the limit.
    pub(super) fn is_reserved(&self) -> bool {
        *self.reserved.borrow()
    }

    /// The connection is no longer beyond the limit.
    pub(super) fn promote(&self) {
        self.reserved.send_replace(false);
    }

    /// Completes when the connection is not beyond the limit.
    pub(super) async fn admitted(&self) {
        let _ = self.reserved.subscribe().wait_for(|reserved| !reserved).await; // the sender lives as long as this
    }

    /// Ends the connection unless a request has arrived that was not read yet.
    pub(super) fn close_if_idle(&self) {
        self.closing.store(true, Relaxed);
        self.reader.wake();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// The connection waits for something to read. Returns whether it is to end if there is nothing.
    pub(super) fn waits_for_reading(&self, cx: &Context<'_>) -> bool {
        self.reader.register(cx.waker());
        self.is_closing() && self.in_flight.load(Relaxed) == 0
    }

    /// Counts a request until this is dropped.
    pub(super) fn begin_request(self: &Arc<Self>) -> InFlight {
        self.requested.store(true, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(self.clone())
    }
}

/// A request on a connection, until the last byte of its response has been handed over.
#[derive(Debug)]
pub(super) struct InFlight(Arc<ConnectionState>);

impl InFlight {
    pub(super) fn connection(&self) -> &ConnectionState {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.idle_since.store(now, Relaxed);
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
