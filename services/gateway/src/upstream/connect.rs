//! Making connections to instances.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Instance;
use super::pool::{Conn, Connection, H2Sender, Sender};
use crate::error::Cause;

/// How often an idle HTTP/2 connection is asked whether the other side still lives, and how long it may take.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection's buffer grows to this at most, and holds the largest head of a reply.
const MAX_BUFFER: usize = 64 << 10;

/// A TCP connection to the instance.
async fn tcp(instance: &Instance, timeout: Duration) -> Result<TcpStream, Cause> {
    let connecting = async {
        match instance.socket_addr {
            Some(addr) => TcpStream::connect(addr).await,
            None => TcpStream::connect(&*instance.addr).await,
        }
    };
    let stream = match tokio::time::timeout(timeout, connecting).await {
        Err(_) => return Err(Cause::ConnectTimeout),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(Cause::ConnectRefused);
        }
        Ok(Err(error)) => {
            tracing::debug!(
                service = %instance.service,
                instance = %instance.id,
                error = &error as &dyn std::error::Error,
                "can't connect"
            );
            return Err(Cause::ConnectFailed);
        }
        Ok(Ok(stream)) => stream,
    };
    instance.stats.opened();
    let _ = stream.set_nodelay(true); // refused only on a dead socket
    Ok(stream)
}

/// A connection for one HTTP/1 request at a time, driven by whoever holds it.
pub(crate) async fn h1(instance: &Instance, timeout: Duration) -> Result<(Sender, Connection, Link), Cause> {
    let link = Link::new(tcp(instance, timeout).await?);
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(MAX_BUFFER);
    match builder.handshake(TokioIo::new(link.clone())).await {
        Ok((sender, connection)) => Ok((sender, connection, link)),
        Err(_) => Err(Cause::ConnectFailed),
    }
}

/// Makes connections for those that wait at the instance's pool, one after the other, until nobody waits who has none
/// under way. Ends with that, or with the worker's event loop.
pub(crate) fn h1_into_pool(instance: Arc<Instance>, worker: usize, timeout: Duration, pool_size: usize) {
    tokio::spawn(async move {
        let Some(pool) = instance.pool(worker) else { return };
        loop {
            let made = h1(&instance, timeout).await;
            let now = Instant::now();
            if !pool.connected(made.map(|made| Conn::new(made, now)), now, pool_size) {
                return;
            }
        }
    });
}

/// A connection for many HTTP/2 requests; the returned future drives it.
pub(crate) async fn h2(
    instance: &Instance,
    timeout: Duration,
) -> Result<(H2Sender, impl Future<Output = Result<(), hyper::Error>> + Send + 'static), Cause> {
    let stream = tcp(instance, timeout).await?;
    hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Cause::ConnectFailed)
}

/// A socket that two can hold: the HTTP connection, and the pool that asks what happened on it.
#[derive(Clone)]
pub(crate) struct Link(Arc<Shared>);

struct Shared {
    /// Only ever locked by the thread that serves the connection.
    stream: Mutex<TcpStream>,
    sent: AtomicBool,
    replied: AtomicBool,
}

impl Link {
    fn new(stream: TcpStream) -> Self {
        Self(Arc::new(Shared {
            stream: Mutex::new(stream),
            sent: AtomicBool::new(false),
            replied: AtomicBool::new(false),
        }))
    }

    /// From here on, [`Link::sent`] and [`Link::replied`] are about the next request.
    pub(crate) fn next_request(&self) {
        self.0.sent.store(false, Relaxed);
        self.0.replied.store(false, Relaxed);
    }

    /// Whether a byte of the request was written.
    pub(crate) fn sent(&self) -> bool {
        self.0.sent.load(Relaxed)
    }

    /// Whether a byte of the reply was read.
    pub(crate) fn replied(&self) -> bool {
        self.0.replied.load(Relaxed)
    }

    /// Asks the kernel whether the other side has closed, or sent what nobody asked for. Costs a system call, and
    /// knows what the event loop may not have heard of yet.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let peeked = socket2::SockRef::from(&*self.stream()).peek(&mut byte);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn stream(&self) -> MutexGuard<'_, TcpStream> {
        self.0.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut *self.stream()).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.0.replied.store(true, Relaxed);
        }
        read
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream()).poll_write(cx, buf);
        self.0.sent.fetch_or(matches!(written, Poll::Ready(Ok(_))), Relaxed);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream()).poll_write_vectored(cx, bufs);
        self.0.sent.fetch_or(matches!(written, Poll::Ready(Ok(_))), Relaxed);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_shutdown(cx)
    }
}
