//! The state of a client's connection, shared by its task, its requests and the worker's sweep. Times are milliseconds
//! since the gateway's start, 0 for "not now", so the hot path only ever stores a number.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Response};
use hubspoke_http1::{Command, Supervisor};
use hubspoke_tls::TlsSocket;
use parking_lot::Mutex;
use tokio::io::WriteHalf;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use crate::caller;
use crate::clients::{ClientUse, RequestSlot, ShareSlot};
use crate::config::TimeoutsConfig;
use crate::error::Cause;
use crate::gateway::Gateway;
use crate::memory::{Charge, SMALL_HEAD};
use crate::task_waker::TaskWaker;

/// How long a head that is not small may take while the memory for heads is used up.
const SHORT_OF_MEMORY: Duration = Duration::from_secs(1);

/// A client's connection.
pub(crate) struct ClientConn {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) worker: usize,
    pub(crate) ip: IpAddr,
    /// The same, for `X-Forwarded-For`.
    pub(crate) ip_value: HeaderValue,
    /// Whether this is one of `trusted_proxies`.
    pub(crate) trusted: bool,
    /// Whether it is behind TLS.
    pub(crate) tls: bool,
    /// `Client-Cert`, once the client has shown a certificate.
    pub(crate) client_cert: OnceLock<HeaderValue>,
    /// What its address holds; `None` for a trusted proxy.
    client_use: Option<Arc<ClientUse>>,
    /// Requests whose responses are not complete.
    active: AtomicU32,
    /// When the last request ended, or the connection was accepted.
    idle_since: AtomicU64,
    /// When the first bytes of an incomplete head arrived.
    head_since: AtomicU64,
    /// The memory of an incomplete head.
    head: Charge,
    /// Whether the connection's task does not read on within a head.
    paused: AtomicBool,
    /// Since when the client has not been reading.
    blocked_since: AtomicU64,
    /// The longest time for which it has not been reading, since its last request began.
    longest_block: AtomicU64,
    /// What waits for the client to read.
    unsent: Charge,
    served: AtomicBool,
    h2: AtomicBool,
    command: AtomicU8,
    waker: TaskWaker,
    has_interim: AtomicBool,
    /// Interim responses of the request whose handler is being polled. Whoever polls it takes them right after, so one
    /// queue serves all streams of a connection: they share a thread.
    interim: Mutex<VecDeque<Response<()>>>,
}

/// An instruction to a connection's task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ConnCommand {
    Continue,
    /// Finish the requests in flight, accept no more.
    Drain,
    /// Answer 408 and close.
    Timeout,
    /// Answer 503 and close: a large head has no memory.
    Overloaded,
    /// Close, with a GOAWAY on HTTP/2.
    Close,
    /// Close at once: the client does not even read.
    Abort,
}

impl ClientConn {
    /// `client_use` is `None` for a trusted proxy.
    pub(crate) fn new(
        gateway: Arc<Gateway>,
        worker: usize,
        ip: IpAddr,
        client_use: Option<Arc<ClientUse>>,
        tls: bool,
    ) -> Self {
        let now = gateway.millis(Instant::now());
        Self {
            worker,
            ip,
            ip_value: HeaderValue::from_str(&ip.to_string())
                .unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            trusted: gateway.is_trusted(ip),
            tls,
            client_cert: OnceLock::new(),
            client_use,
            active: AtomicU32::new(0),
            idle_since: AtomicU64::new(now),
            head_since: AtomicU64::new(0),
            head: gateway.memory.heads.charge(),
            paused: AtomicBool::new(false),
            blocked_since: AtomicU64::new(0),
            longest_block: AtomicU64::new(0),
            unsent: gateway.memory.buffers.charge(),
            served: AtomicBool::new(false),
            h2: AtomicBool::new(false),
            command: AtomicU8::new(ConnCommand::Continue as u8),
            waker: TaskWaker::default(),
            has_interim: AtomicBool::new(false),
            interim: Mutex::default(),
            gateway,
        }
    }

    /// The address that a request on this connection comes from.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> IpAddr {
        match self.trusted {
            true => caller::behind(self.ip, headers, |ip| self.gateway.is_trusted(ip)),
            false => self.ip,
        }
    }

    /// Counts a request of `caller` to a service that has `in_flight` of at most `max`, unless the caller has too many
    /// in flight. A proxy that does not report whose request it is is not limited.
    pub(crate) fn admit(
        &self,
        caller: IpAddr,
        in_flight: usize,
        max: usize,
    ) -> Result<Option<RequestSlot>, Cause> {
        let clients = &self.gateway.clients;
        let client = match &self.client_use {
            Some(client) => client.clone(),
            None if caller == self.ip => return Ok(None),
            None => clients.of(caller),
        };
        clients.request(client, in_flight, max).map(Some).ok_or(Cause::ClientOverloaded)
    }

    /// Queues an interim response of the request whose handler is being polled.
    pub(crate) fn put_interim(&self, response: Response<()>) {
        self.interim.lock().push_back(response);
        self.has_interim.store(true, Relaxed);
    }

    /// Takes the next interim response, right after the handler was polled.
    pub(crate) fn take_interim(&self) -> Option<Response<()>> {
        if !self.has_interim.load(Relaxed) {
            return None;
        }
        let mut interim = self.interim.lock();
        let next = interim.pop_front();
        self.has_interim.store(!interim.is_empty(), Relaxed);
        next
    }

    /// The client speaks HTTP/2.
    pub(crate) fn speaks_h2(&self) {
        self.h2.store(true, Relaxed);
    }

    /// Counts the connection as one over HTTP/2, unless there are too many.
    pub(crate) fn connect_h2(&self) -> Option<ShareSlot<'_>> {
        self.gateway.clients.connect_h2(self.client_use.as_deref())
    }

    /// Counts the connection as one with TLS, unless there are too many.
    pub(crate) fn connect_tls(&self) -> Option<ShareSlot<'_>> {
        self.gateway.clients.connect_tls(self.client_use.as_deref())
    }

    pub(crate) fn request_began(&self) {
        self.longest_block.store(0, Relaxed);
        self.active.fetch_add(1, Relaxed);
        self.served.store(true, Relaxed);
    }

    pub(crate) fn request_ended(&self, now: Instant) {
        self.idle_since.store(self.gateway.millis(now), Relaxed);
        self.active.fetch_sub(1, Relaxed);
    }

    /// Called after each read: the memory of the incomplete head that the bytes so far end within, or 0.
    pub(crate) fn set_reading_head(&self, memory: usize) {
        if memory == 0 && !self.is_reading_head() {
            return;
        }
        self.set_since(&self.head_since, memory > 0);
        self.head.set(memory);
    }

    /// Whether the bytes so far end within a head.
    pub(crate) fn is_reading_head(&self) -> bool {
        self.head_since.load(Relaxed) != 0
    }

    /// Whether the connection must not read on within a head now. The sweep wakes it.
    pub(crate) fn pauses_head(&self) -> bool {
        let paused = self.is_short_of_memory();
        if paused {
            self.paused.store(true, Relaxed);
        }
        paused
    }

    /// Whether it has a head that is no longer small while the memory for heads is used up.
    fn is_short_of_memory(&self) -> bool {
        self.head.bytes() > SMALL_HEAD && self.gateway.memory.heads.is_exhausted()
    }

    /// Called after each write: how many bytes wait because the client's receive buffer is full, or 0.
    pub(crate) fn set_write_blocked(&self, unsent: usize) {
        let since = self.blocked_since.load(Relaxed);
        if unsent == 0 && since == 0 {
            return;
        }
        if unsent == 0 {
            let block = self.gateway.millis(Instant::now()).saturating_sub(since);
            self.longest_block.fetch_max(block, Relaxed);
        }
        self.set_since(&self.blocked_since, unsent > 0);
        self.unsent.waits(unsent);
    }

    /// Whether the client has once not been reading for this long, since its last request began.
    pub(crate) fn was_blocked_for(&self, time: Duration) -> bool {
        u128::from(self.longest_block.load(Relaxed)) >= time.as_millis()
    }

    fn set_since(&self, since: &AtomicU64, holds: bool) {
        let held = since.load(Relaxed) != 0;
        if holds && !held {
            since.store(self.gateway.millis(Instant::now()).max(1), Relaxed);
        } else if !holds && held {
            since.store(0, Relaxed);
        }
    }

    /// Whether no request is in flight and all responses are written.
    pub(crate) fn is_idle(&self) -> bool {
        self.active.load(Relaxed) == 0 && self.blocked_since.load(Relaxed) == 0
    }

    /// How long it has been idle, and whether it had a request before. `None` if it is not idle now.
    pub(crate) fn idle(&self, now: Instant) -> Option<(Duration, bool)> {
        if !self.is_idle() || self.is_reading_head() || self.last_command() != ConnCommand::Continue {
            return None;
        }
        let idle = self.gateway.millis(now).saturating_sub(self.idle_since.load(Relaxed));
        Some((Duration::from_millis(idle), self.served.load(Relaxed)))
    }

    /// Sends the connection's task a command, and wakes it.
    pub(crate) fn send(&self, command: ConnCommand) {
        self.command.store(command as u8, Relaxed);
        self.waker.wake();
    }

    /// The last command that was sent; `waker` is woken by the next.
    pub(crate) fn command(&self, waker: &Waker) -> ConnCommand {
        self.waker.register(waker);
        self.last_command()
    }

    pub(crate) fn last_command(&self) -> ConnCommand {
        match self.command.load(Relaxed) {
            1 => ConnCommand::Drain,
            2 => ConnCommand::Timeout,
            3 => ConnCommand::Overloaded,
            4 => ConnCommand::Close,
            5 => ConnCommand::Abort,
            _ => ConnCommand::Continue,
        }
    }

    /// Wakes the connection's task if it has paused.
    pub(crate) fn resume(&self) {
        if self.paused.swap(false, Relaxed) {
            self.waker.wake();
        }
    }

    /// The command for a connection that may have been in its state for too long.
    pub(crate) fn overdue(&self, now: Instant, timeouts: &TimeoutsConfig) -> ConnCommand {
        let now = self.gateway.millis(now);
        let is_over = |since: u64, limit: Duration| {
            since != 0 && u128::from(now.saturating_sub(since)) >= limit.as_millis()
        };
        let blocked_since = self.blocked_since.load(Relaxed);
        if is_over(blocked_since, timeouts.idle) {
            return ConnCommand::Abort;
        }
        let head_since = self.head_since.load(Relaxed);
        let is_overloaded = self.is_short_of_memory() && is_over(head_since, SHORT_OF_MEMORY);
        let head_is_over = is_overloaded || is_over(head_since, timeouts.request_header);
        // On HTTP/2, a header block holds up all streams, and can't be answered before its end.
        if head_is_over && self.h2.load(Relaxed) {
            return ConnCommand::Abort;
        }
        // While the last response is being written, a 408 must not be written into it.
        if self.active.load(Relaxed) > 0 || blocked_since != 0 {
            return ConnCommand::Continue;
        }
        if head_is_over {
            return if is_overloaded { ConnCommand::Overloaded } else { ConnCommand::Timeout };
        }
        let limit = if self.served.load(Relaxed) { timeouts.keep_alive } else { timeouts.request_header };
        let is_overdue = head_since == 0 && is_over(self.idle_since.load(Relaxed).max(1), limit);
        if is_overdue { ConnCommand::Close } else { ConnCommand::Continue }
    }
}

/// Has the kernel reset a connection that is closed before the end of a response.
pub(crate) trait ResetIfClosed {
    fn reset_if_closed(&self, on: bool);
}

impl ResetIfClosed for OwnedWriteHalf {
    fn reset_if_closed(&self, on: bool) {
        let linger = on.then_some(Duration::ZERO);
        let _ = socket2::SockRef::from(self.as_ref()).set_linger(linger); // fails only on a dead socket
    }
}

/// Without a close_notify, its client knows.
impl ResetIfClosed for WriteHalf<TlsSocket<TcpStream>> {
    fn reset_if_closed(&self, _: bool) {}
}

impl<W: ResetIfClosed> Supervisor<W> for &ClientConn {
    #[inline]
    fn command(&self, waker: &Waker) -> Command {
        match ClientConn::command(self, waker) {
            ConnCommand::Continue => Command::Continue,
            ConnCommand::Drain => Command::Drain,
            ConnCommand::Timeout | ConnCommand::Overloaded => Command::Timeout,
            ConnCommand::Close | ConnCommand::Abort => Command::Close,
        }
    }

    #[inline]
    fn reading_head(&self, memory: usize) {
        self.set_reading_head(memory);
    }

    #[inline]
    fn pauses_head(&self) -> bool {
        ClientConn::pauses_head(self)
    }

    #[inline]
    fn write_blocked(&self, unsent: usize) {
        self.set_write_blocked(unsent);
    }

    #[inline]
    fn take_interim(&self) -> Option<Response<()>> {
        ClientConn::take_interim(self)
    }

    fn close_delimited(&self, write: &W, is_open: bool) {
        write.reset_if_closed(is_open);
    }
}

#[cfg(test)]
mod tests {
    use hubspoke_chassis::Metrics;
    use hubspoke_client::LoadCounters;

    use super::*;
    use crate::config::GatewayConfig;

    fn timeouts() -> TimeoutsConfig {
        TimeoutsConfig {
            request_header: Duration::from_secs(1),
            keep_alive: Duration::from_secs(10),
            idle: Duration::from_secs(5),
            ..TimeoutsConfig::default()
        }
    }

    fn client() -> ClientConn {
        let metrics = Metrics::new("gateway", "gateway-1").unwrap();
        let gateway =
            Gateway::new(GatewayConfig::default(), None, "gateway", LoadCounters::default(), &metrics);
        ClientConn::new(Arc::new(gateway), 0, IpAddr::from([127, 0, 0, 1]), None, false)
    }

    fn after(client: &ClientConn, seconds: u64) -> ConnCommand {
        client.overdue(Instant::now() + Duration::from_secs(seconds), &timeouts())
    }

    #[test]
    fn each_state_has_its_timeout() {
        let client = client();
        assert_eq!((after(&client, 0), after(&client, 2)), (ConnCommand::Continue, ConnCommand::Close)); // no request yet
        client.set_reading_head(100);
        assert_eq!((after(&client, 0), after(&client, 2)), (ConnCommand::Continue, ConnCommand::Timeout));
        client.set_reading_head(0);
        client.request_began();
        assert_eq!(after(&client, 60), ConnCommand::Continue);
        client.request_ended(Instant::now());
        assert_eq!((after(&client, 2), after(&client, 11)), (ConnCommand::Continue, ConnCommand::Close));
    }

    #[test]
    fn no_408_while_the_last_response_is_not_written() {
        let client = client();
        client.request_began();
        client.request_ended(Instant::now());
        client.set_write_blocked(100);
        client.set_reading_head(100); // the next request has begun to arrive
        assert_eq!(after(&client, 2), ConnCommand::Continue);
        assert_eq!(after(&client, 6), ConnCommand::Abort);
        client.set_write_blocked(0);
        assert_eq!(after(&client, 2), ConnCommand::Timeout);
    }
}
