//! A client's socket. Its connection fails if the client reads nothing: hyper waits for such a client forever and
//! meanwhile polls neither body nor handler, so neither can end it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::connection_state::ConnectionState;

/// How long a connection that is closed waits for bytes that are still on their way.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// How many of them are read.
const LINGER_BYTES: usize = 1 << 20;

/// A socket whose writes fail when the client has read nothing for `write_timeout`. Dropped while a write is stalled, it
/// resets the connection: otherwise the kernel would keep the unsent bytes and go on offering them.
pub(super) struct ClientStream {
    stream: TcpStream,
    connection: Arc<ConnectionState>,
    write_timeout: Duration,
    /// The deadline of a stalled write.
    stalled: Option<Pin<Box<Sleep>>>,
    linger: Linger,
}

/// The close of a connection on which the client still sends, as after a head that is too long. A socket that is closed
/// with bytes unread resets the connection, and the client may never see the response (RFC 9112, section 9.6).
enum Linger {
    /// Not closed yet.
    Open,
    /// The response is sent. So much was discarded since; the deadline begins with the first byte.
    Closing(usize, Option<Pin<Box<Sleep>>>),
}

impl ClientStream {
    pub(super) fn new(stream: TcpStream, connection: Arc<ConnectionState>, write_timeout: Duration) -> Self {
        Self { stream, connection, write_timeout, stalled: None, linger: Linger::Open }
    }

    fn check<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.stalled.take().is_some() {
                self.connection.set_stalled(false);
            }
            return written;
        }
        let timeout = self.write_timeout;
        if self.stalled.is_none() {
            self.connection.set_stalled(true);
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether bytes have arrived that the runtime has not noticed yet.
    fn has_unread_bytes(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        rustix::net::recv(&self.stream, &mut [0; 1][..], flags).is_ok()
    }

    /// Discards what the client sends until it closes, if it has sent anything that was not read.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Linger::Closing(discarded, deadline) = &mut self.linger else { return Poll::Ready(()) };
        let mut bytes = [0; 4096];
        while *discarded < LINGER_BYTES {
            let mut buf = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    *discarded += buf.filled().len();
                    deadline.get_or_insert_with(|| Box::pin(sleep(LINGER_TIME)));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    return deadline.as_mut().map_or(Poll::Ready(()), |deadline| deadline.as_mut().poll(cx));
                }
            }
        }
        Poll::Ready(())
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.stalled.is_some() {
            let _ = self.stream.set_zero_linger(); // fails only on a dead socket
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() && self.connection.waits_for_reading(cx) && !self.has_unread_bytes() {
            return Poll::Ready(Ok(())); // as if the client had closed
        }
        read
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.check(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.check(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.linger, Linger::Open) {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.linger = Linger::Closing(0, None);
        }
        self.poll_linger(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::{Instant, timeout};

    use super::super::connection_state::Client;
    use super::*;

    async fn pair(write_timeout: Duration) -> (ClientStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let connection =
            Arc::new(ConnectionState::new(Arc::new(Client::new(Ipv4Addr::LOCALHOST.into())), false));
        (ClientStream::new(listener.accept().await.unwrap().0, connection, write_timeout), peer)
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_reset() {
        let (mut server, mut peer) = pair(Duration::from_millis(100)).await;
        let connection = server.connection.clone();
        let writes = async move {
            loop {
                if let Err(error) = server.write_all(&[0; 1 << 16]).await {
                    return error.kind();
                }
            }
        };
        let error = timeout(Duration::from_secs(20), writes).await.expect("the write times out");
        assert_eq!(error, io::ErrorKind::TimedOut);
        assert_eq!(connection.idle(std::time::Instant::now()), None, "a response is being sent");
        let ended = timeout(Duration::from_secs(20), peer.read_to_end(&mut Vec::new())).await;
        assert_eq!(ended.expect("the connection ends").unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_client_that_reads_slowly_is_served_to_the_end() {
        let write_timeout = Duration::from_millis(500);
        let (mut server, mut peer) = pair(write_timeout).await;
        let connection = server.connection.clone();
        let bytes = vec![7; 16 << 20];
        let start = Instant::now();
        let writes = tokio::spawn(async move { server.write_all(&bytes).await });
        let mut buffer = vec![0; 4 << 20];
        let mut total = 0;
        while let Ok(read @ 1..) = peer.read(&mut buffer).await {
            total += read;
            if start.elapsed() < 3 * write_timeout {
                tokio::time::sleep(write_timeout / 5).await;
            }
        }
        writes.await.unwrap().unwrap();
        assert_eq!(total, 16 << 20);
        assert!(connection.idle(std::time::Instant::now()).is_some());
    }

    #[tokio::test]
    async fn a_client_that_still_sends_reads_the_response() {
        for rounds in [0, 1, 3] {
            let (mut server, mut peer) = pair(Duration::from_secs(20)).await;
            peer.write_all(&[0; 1000]).await.unwrap();
            server.read_exact(&mut [0; 10]).await.unwrap();
            server.write_all(b"too long").await.unwrap();
            let closing = tokio::spawn(async move { server.shutdown().await });
            for _ in 0..rounds {
                peer.write_all(&vec![0; 100_000]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let mut response = Vec::new();
            peer.read_to_end(&mut response).await.unwrap();
            assert_eq!(response, b"too long");
            drop(peer);
            closing.await.unwrap().unwrap();
        }
    }
}
