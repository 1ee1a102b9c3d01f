//! An HTTP/1 connection to an instance, which a pool keeps between requests.

use std::io;
use std::mem::MaybeUninit;
use std::time::Instant;

use hubspoke_http1::ClientConnection;
use tokio::net::TcpStream;

use crate::replay::ReplayBody;

/// An HTTP/1 connection to an instance.
pub(crate) struct Conn {
    pub(crate) http: ClientConnection<TcpStream, ReplayBody>,
    /// Whether it has carried a request before.
    pub(crate) reused: bool,
    /// When it was opened, or became idle.
    pub(super) since: Instant,
}

impl Conn {
    pub(super) fn new(stream: TcpStream, now: Instant) -> Self {
        Self { http: ClientConnection::new(stream), reused: false, since: now }
    }

    /// Whether an idle connection is open, as far as the event loop knows: no system call if all is well.
    pub(super) fn is_open(&self) -> bool {
        would_block(self.http.get_ref().try_read(&mut [0]))
    }

    /// Asks the kernel the same. Costs a system call, but shows a close that the event loop has not seen yet.
    pub(super) fn probe(&self) -> bool {
        would_block(socket2::SockRef::from(self.http.get_ref()).peek(&mut [MaybeUninit::uninit()]))
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
            let conn = Conn::new(stream, Instant::now());
            assert!(conn.is_open() && conn.probe());
            if sends {
                instance.write_all(b"x").await.unwrap();
            } else {
                drop(instance);
            }
            conn.http.get_ref().readable().await.unwrap();
            assert!(!conn.probe() && !conn.is_open());
        }
    }
}
