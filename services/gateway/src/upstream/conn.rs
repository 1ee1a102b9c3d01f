//! An HTTP/1 connection to an instance, which a pool keeps between requests.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Instant;

use hubspoke_http1::ClientConnection;
use hubspoke_tls::{Generation, MaybeTls};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use crate::replay::ReplayBody;

/// An HTTP/1 connection to an instance.
pub(crate) struct Conn {
    pub(crate) http: ClientConnection<MaybeTls<TcpStream>, ReplayBody>,
    /// Whether it has carried a request before.
    pub(crate) reused: bool,
    /// When it was opened, or became idle.
    pub(super) since: Instant,
    /// The identity with which it was opened, if it is TLS.
    generation: Option<Generation>,
}

impl Conn {
    pub(super) fn new(stream: MaybeTls<TcpStream>, generation: Option<Generation>, now: Instant) -> Self {
        Self { http: ClientConnection::new(stream), reused: false, since: now, generation }
    }

    /// Whether an idle connection is open, as far as the event loop knows: no system call if all is well.
    pub(super) fn is_open(&mut self) -> bool {
        match self.http.get_mut() {
            MaybeTls::Plain(stream) => would_block(stream.try_read(&mut [0])),
            // Records that carry no bytes, such as session tickets, are nobody's business.
            MaybeTls::Tls(stream) => {
                let mut byte = [0];
                let (mut cx, mut buf) = (Context::from_waker(Waker::noop()), ReadBuf::new(&mut byte));
                Pin::new(&mut **stream).poll_read(&mut cx, &mut buf).is_pending() && self.is_current()
            }
        }
    }

    /// Asks the kernel the same. Costs a system call, but shows a close that the event loop has not seen yet.
    pub(super) fn probe(&self) -> bool {
        let socket = socket2::SockRef::from(self.http.get_ref().get_ref());
        would_block(socket.peek(&mut [MaybeUninit::uninit()])) && self.is_current()
    }

    /// Whether the certificates with which it was opened are still in use.
    fn is_current(&self) -> bool {
        self.generation.as_ref().is_none_or(Generation::is_current)
    }
}

fn would_block(read: io::Result<usize>) -> bool {
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_open_until_the_instance_closes_it_or_sends_anything() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for sends in [true, false] {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut instance, _) = listener.accept().await.unwrap();
            let mut conn = Conn::new(MaybeTls::Plain(stream), None, Instant::now());
            assert!(conn.is_open() && conn.probe());
            if sends {
                instance.write_all(b"x").await.unwrap();
            } else {
                drop(instance);
            }
            conn.http.get_ref().get_ref().readable().await.unwrap();
            assert!(!conn.probe() && !conn.is_open());
        }
    }
}
