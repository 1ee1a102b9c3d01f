//! One client's connection, as its task, its requests and the worker's sweep share it. Times are milliseconds since the
//! gateway's start, 0 for "not now", so that the hot path only ever stores a number.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use http::HeaderValue;

use super::stream::Held;
use crate::gateway::Gateway;
use crate::proxy::tunnel::Tunnel;

/// One client's connection.
pub(crate) struct Peer {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) worker: usize,
    pub(crate) addr: SocketAddr,
    /// The address without its port, for `X-Forwarded-For`.
    pub(crate) value: HeaderValue,
    /// A proxy of ours.
    pub(crate) trusted: bool,
    /// Requests whose replies are not over.
    active: AtomicU32,
    /// The last request ended, or the connection began.
    idle_since: AtomicU64,
    /// A head has begun to come and is not complete.
    head_since: AtomicU64,
    /// The client does not read what is there for it.
    blocked_since: AtomicU64,
    served: AtomicBool,
    upgraded: AtomicBool,
    order: AtomicU8,
    waker: AtomicWaker,
    /// What the connection's task goes on with after an upgrade.
    tunnel: Mutex<Option<Tunnel>>,
    /// Replies on HTTP/2 streams.
    streams: Mutex<Vec<Weak<Held>>>,
}

/// What the connection's task is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Order {
    /// Go on.
    None,
    /// Finish the requests in flight, take no more.
    Drain,
    /// Answer 408 and close.
    Timeout,
    /// Close, after saying so where the protocol can.
    Close,
    /// Close at once: the client does not even read.
    Abort,
}

/// How long a connection may be in which state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) request_header: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) idle: Duration,
}

impl Peer {
    pub(crate) fn new(gateway: Arc<Gateway>, worker: usize, addr: SocketAddr) -> Self {
        let ip = addr.ip().to_canonical();
        let now = gateway.millis(Instant::now());
        Self {
            worker,
            addr,
            value: HeaderValue::from_str(&ip.to_string())
                .unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            trusted: gateway.is_trusted(ip),
            active: AtomicU32::new(0),
            idle_since: AtomicU64::new(now),
            head_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            served: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
            order: AtomicU8::new(Order::None as u8),
            waker: AtomicWaker::new(),
            tunnel: Mutex::new(None),
            streams: Mutex::default(),
            gateway,
        }
    }

    pub(crate) fn request_began(&self) {
        self.active.fetch_add(1, Relaxed);
        self.served.store(true, Relaxed);
    }

    pub(crate) fn request_ended(&self, now: Instant) {
        self.idle_since.store(self.gateway.millis(now), Relaxed);
        self.active.fetch_sub(1, Relaxed);
    }

    /// Bytes were read; `in_head`: they end within a head.
    pub(super) fn head(&self, in_head: bool) {
        let known = self.head_since.load(Relaxed);
        if in_head && known == 0 {
            self.head_since.store(self.gateway.millis(Instant::now()).max(1), Relaxed);
        } else if !in_head && known != 0 {
            self.head_since.store(0, Relaxed);
        }
    }

    /// Bytes could or could not be written.
    pub(super) fn blocked(&self, blocked: bool) {
        let known = self.blocked_since.load(Relaxed);
        if blocked && known == 0 {
            self.blocked_since.store(self.gateway.millis(Instant::now()).max(1), Relaxed);
        } else if !blocked && known != 0 {
            self.blocked_since.store(0, Relaxed);
        }
    }

    /// Nothing is in flight and all replies are written.
    pub(super) fn is_quiet(&self) -> bool {
        self.active.load(Relaxed) == 0 && self.blocked_since.load(Relaxed) == 0
    }

    /// What follows is no longer HTTP: the connection's task goes on with `tunnel`.
    pub(crate) fn upgrade(&self, tunnel: Tunnel) {
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
        self.upgraded.store(true, Relaxed);
    }

    pub(super) fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Relaxed)
    }

    /// A reply begins whose stream may be left unread while others go on.
    pub(super) fn watch(&self, stream: &Arc<Held>) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(stream));
    }

    /// Lets go of replies that have not been read on for `patience`.
    fn look_over_streams(&self, now: u64, patience: Duration) {
        let mut streams = std::mem::take(&mut *self.streams.lock().unwrap_or_else(PoisonError::into_inner));
        streams.retain(|stream| stream.upgrade().is_some_and(|stream| stream.look_over(now, patience)));
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).append(&mut streams);
    }

    /// Tells the connection's task to do something, and wakes it.
    pub(super) fn give(&self, order: Order) {
        self.order.store(order as u8, Relaxed);
        self.waker.wake();
    }

    pub(super) fn order(&self, waker: &Waker) -> Order {
        self.waker.register(waker);
        match self.order.load(Relaxed) {
            1 => Order::Drain,
            2 => Order::Timeout,
            3 => Order::Close,
            4 => Order::Abort,
            _ => Order::None,
        }
    }

    /// What to do with a connection that may have been in its state for too long.
    pub(super) fn overdue(&self, now: Instant, patience: &Patience) -> Order {
        let now = self.gateway.millis(now);
        let over = |since: u64, limit: Duration| {
            since != 0 && u128::from(now.saturating_sub(since)) >= limit.as_millis()
        };
        if self.is_upgraded() {
            return Order::None;
        }
        let blocked_since = self.blocked_since.load(Relaxed);
        if over(blocked_since, patience.idle) {
            return Order::Abort;
        }
        self.look_over_streams(now, patience.idle);
        // While the last reply is still being written, nothing may be written behind its back.
        if self.active.load(Relaxed) > 0 || blocked_since != 0 {
            return Order::None;
        }
        if over(self.head_since.load(Relaxed), patience.request_header) {
            return Order::Timeout;
        }
        let wait = if self.served.load(Relaxed) { patience.keep_alive } else { patience.request_header };
        let in_head = self.head_since.load(Relaxed) != 0;
        if !in_head && over(self.idle_since.load(Relaxed).max(1), wait) { Order::Close } else { Order::None }
    }
}

#[cfg(test)]
mod tests {
    use hubspoke_chassis::Metrics;
    use hubspoke_client::LoadCounters;

    use super::*;
    use crate::config::GatewayConfig;

    const PATIENCE: Patience = Patience {
        request_header: Duration::from_secs(1),
        keep_alive: Duration::from_secs(10),
        idle: Duration::from_secs(5),
    };

    fn peer() -> Peer {
        let metrics = Metrics::new("gateway", "gateway-1").unwrap();
        let gateway = Gateway::new(GatewayConfig::default(), "gateway", LoadCounters::default(), &metrics);
        Peer::new(Arc::new(gateway), 0, SocketAddr::from(([127, 0, 0, 1], 1)))
    }

    fn after(peer: &Peer, seconds: u64) -> Order {
        peer.overdue(Instant::now() + Duration::from_secs(seconds), &PATIENCE)
    }

    #[test]
    fn each_state_has_its_patience() {
        let peer = peer();
        assert_eq!((after(&peer, 0), after(&peer, 2)), (Order::None, Order::Close)); // no request yet
        peer.head(true);
        assert_eq!((after(&peer, 0), after(&peer, 2)), (Order::None, Order::Timeout));
        peer.head(false);
        peer.request_began();
        assert_eq!(after(&peer, 60), Order::None);
        peer.request_ended(Instant::now());
        assert_eq!((after(&peer, 2), after(&peer, 11)), (Order::None, Order::Close));
    }

    #[test]
    fn nothing_is_said_while_the_last_reply_is_not_written() {
        let peer = peer();
        peer.request_began();
        peer.request_ended(Instant::now());
        peer.blocked(true);
        peer.head(true); // the next request has begun to come
        assert_eq!(after(&peer, 2), Order::None);
        assert_eq!(after(&peer, 6), Order::Abort);
        peer.blocked(false);
        assert_eq!(after(&peer, 2), Order::Timeout);
    }
}
