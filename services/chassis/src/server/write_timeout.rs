//! Fails the connection of a client that does not read. hyper waits for such a client forever and meanwhile polls
//! neither body nor handler, so neither can end it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// A socket whose writes fail when the peer has read nothing for `timeout`. Dropped while a write is stalled, it resets
/// the connection: otherwise the kernel would keep the unsent bytes and go on offering them.
pub(super) struct WriteTimeout {
    stream: TcpStream,
    timeout: Duration,
    /// The deadline of a stalled write.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl WriteTimeout {
    pub(super) fn new(stream: TcpStream, timeout: Duration) -> Self {
        Self { stream, timeout, stalled: None }
    }

    fn check<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for WriteTimeout {
    fn drop(&mut self) {
        if self.stalled.is_some() {
            let _ = self.stream.set_zero_linger(); // fails only on a dead socket
        }
    }
}

impl AsyncRead for WriteTimeout {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for WriteTimeout {
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
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::{Instant, timeout};

    use super::*;

    async fn pair(write_timeout: Duration) -> (WriteTimeout, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (WriteTimeout::new(listener.accept().await.unwrap().0, write_timeout), peer)
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_reset() {
        let (mut server, mut peer) = pair(Duration::from_millis(100)).await;
        let writes = async move {
            loop {
                if let Err(error) = server.write_all(&[0; 1 << 16]).await {
                    return error.kind();
                }
            }
        };
        let error = timeout(Duration::from_secs(20), writes).await.expect("the write times out");
        assert_eq!(error, io::ErrorKind::TimedOut);
        let ended = timeout(Duration::from_secs(20), peer.read_to_end(&mut Vec::new())).await;
        assert_eq!(ended.expect("the connection ends").unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_client_that_reads_slowly_is_served_to_the_end() {
        let write_timeout = Duration::from_millis(500);
        let (mut server, mut peer) = pair(write_timeout).await;
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
    }
}
