//! What both ends of an HTTP/2 connection share: the room that a stream has, and pings.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use h2::{Ping, PingPong, Reason, SendStream};
use tokio::time::{Instant, Sleep};

/// The other side is pinged this often, and disconnected if an answer takes longer than `PING_TIMEOUT`.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits until the windows and the send buffer have room. Nothing is reserved while nothing is to be sent: that would
/// take a part of the connection's window from other streams.
pub(crate) fn poll_capacity<B: Buf>(
    stream: &mut SendStream<B>,
    wanted: usize,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, h2::Error>> {
    stream.reserve_capacity(wanted);
    loop {
        if stream.capacity() > 0 {
            return Poll::Ready(Ok(stream.capacity()));
        }
        if let Poll::Ready(error) = poll_reset(stream, cx) {
            return Poll::Ready(Err(error));
        }
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => return Poll::Ready(Err(Reason::CANCEL.into())),
        }
    }
}

/// Ready if the other side has reset the stream, or has gone.
pub(crate) fn poll_reset<B: Buf>(stream: &mut SendStream<B>, cx: &mut Context<'_>) -> Poll<h2::Error> {
    stream.poll_reset(cx).map(|reset| reset.map_or_else(|error| error, h2::Error::from))
}

/// Finds out whether a silent peer is still there.
pub(crate) struct Pings {
    ping_pong: PingPong,
    timer: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl Pings {
    pub(crate) fn new(ping_pong: PingPong) -> Self {
        Self { ping_pong, timer: Box::pin(tokio::time::sleep(PING_INTERVAL)), is_waiting: false }
    }

    /// Ready if a ping stays unanswered. None is sent while the connection is not `in_use`.
    pub(crate) fn poll_unanswered(&mut self, in_use: bool, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.is_waiting && self.ping_pong.poll_pong(cx).is_ready() {
                self.is_waiting = false;
                self.timer.as_mut().reset(Instant::now() + PING_INTERVAL);
            }
            ready!(self.timer.as_mut().poll(cx));
            if self.is_waiting || in_use && self.ping_pong.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.is_waiting = in_use;
            self.timer.as_mut().reset(Instant::now() + if in_use { PING_TIMEOUT } else { PING_INTERVAL });
        }
    }
}
