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

    /// Bytes were read: how much memory the incomplete request head takes up that they end within; 0 if they don't.
    #[inline]
    fn reading_head(&self, memory: usize) {
        let _ = memory;
    }

    /// Whether a connection with an incomplete request head must not read on now. Whoever says so wakes the connection
    /// later, by the waker of [`Supervisor::command`].
    #[inline]
    fn pauses_head(&self) -> bool {
        false
    }

    /// The connection wrote, or tried to: how many bytes wait because the client's receive buffer is full; 0 if it is
    /// not.
    #[inline]
    fn write_blocked(&self, unsent: usize) {
        let _ = unsent;
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
