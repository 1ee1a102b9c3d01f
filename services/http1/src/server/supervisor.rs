//! Watching over connections from outside.
//!
//! A connection has no timers for its clients' slowness: one per connection would cost more than a sweep over all of
//! them, a few times a second, by whoever owns them.

use std::task::Waker;

use http::Response;

/// Learns the state of a [`ServerConnection`](crate::ServerConnection) and tells it what to do. All methods
/// are called often, and must be cheap.
pub trait Supervisor<W> {
    /// The command that holds now; `waker` is to be woken when there is another.
    #[inline]
    fn command(&self, waker: &Waker) -> Command {
        let _ = waker;
        Command::Continue
    }

    /// Bytes were read: whether they end within a request head.
    #[inline]
    fn reading_head(&self, is_partial: bool) {
        let _ = is_partial;
    }

    /// The connection wrote, or tried to: whether the client's receive buffer is full.
    #[inline]
    fn write_blocked(&self, is_blocked: bool) {
        let _ = is_blocked;
    }

    /// Takes an interim response (1xx) that is to be sent before the final one. Asked after each poll of the handler.
    #[inline]
    fn take_interim(&self) -> Option<Response<()>> {
        None
    }

    /// A response begins or ends whose end only the end of the connection shows. If the connection is cut off before, it
    /// should be reset (a TCP socket: by a linger time of zero), or the response would look complete.
    #[inline]
    fn close_delimited(&self, write: &W, is_open: bool) {
        let _ = (write, is_open);
    }
}

/// Never intervenes.
impl<W> Supervisor<W> for () {}

/// An instruction to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Serve on.
    Continue,
    /// Finish the request in flight, and close.
    Drain,
    /// Stop with [`ConnectionEnd::Timeout`](crate::ConnectionEnd::Timeout).
    Timeout,
    /// Close at once.
    Close,
}
