//! What ends a connection whose peer does not read. hyper waits for such a peer for ever, and as long as it waits
//! it asks neither the body for more nor the handler for anything, so the handler can't end it by ending the body.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};

/// The connection that a request came on, among the request's extensions.
#[derive(Debug, Clone, Default)]
pub struct Connection(Arc<Notify>);

impl Connection {
    /// Ends it at once, with every request on it: for a peer that is given up on.
    pub fn end(&self) {
        self.0.notify_one();
    }

    pub(super) async fn ended(&self) {
        self.0.notified().await;
    }
}

/// A socket that fails when its peer has taken nothing for so long, and that throws away what is still to be sent
/// when it is dropped meanwhile: otherwise the kernel would go on offering it.
pub(super) struct Impatient {
    stream: TcpStream,
    patience: Duration,
    /// Since the peer takes nothing: until when it is waited for.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    pub(super) fn new(stream: TcpStream, patience: Duration) -> Self {
        Self { stream, patience, stalled: None }
    }

    fn judge<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Impatient {
    fn drop(&mut self) {
        if self.stalled.is_some() {
            let _ = self.stream.set_zero_linger(); // refused only on a dead socket
        }
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.judge(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::{Instant, timeout};

    use super::*;

    async fn pair(patience: Duration) -> (Impatient, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Impatient::new(listener.accept().await.unwrap().0, patience), peer)
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_given_up_on_and_sees_it() {
        let (mut server, mut peer) = pair(Duration::from_millis(100)).await;
        let writes = async move {
            loop {
                if let Err(error) = server.write_all(&[0; 1 << 16]).await {
                    return error.kind();
                }
            }
        };
        let error = timeout(Duration::from_secs(20), writes).await.expect("it gives up");
        assert_eq!(error, io::ErrorKind::TimedOut);
        let ended = timeout(Duration::from_secs(20), peer.read_to_end(&mut Vec::new())).await;
        assert_eq!(ended.expect("it ends").unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_slow_peer_is_waited_for_as_long_as_it_takes_something() {
        let patience = Duration::from_millis(500);
        let (mut server, mut peer) = pair(patience).await;
        let bytes = vec![7; 16 << 20];
        let began = Instant::now();
        let writes = tokio::spawn(async move { server.write_all(&bytes).await });
        let mut buffer = vec![0; 4 << 20];
        let mut read = 0;
        while let Ok(some @ 1..) = peer.read(&mut buffer).await {
            read += some;
            if began.elapsed() < 3 * patience {
                tokio::time::sleep(patience / 5).await;
            }
        }
        writes.await.unwrap().unwrap();
        assert_eq!(read, 16 << 20);
    }
}
