//! Opens connections to instances.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, Instant};

use h2::client::Builder;
use tokio::net::TcpStream;

use super::conn::Conn;
use super::h2_conn::H2Conn;
use super::instance::Instance;
use super::instance_io::InstanceIo;
use crate::error::Cause;

/// How much of a response an instance may send ahead on a stream. The connection's window is ample, so that a response
/// that its client does not read delays no other.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 64 << 20;
/// The most that h2 keeps of one request until the instance's socket takes it.
const SEND_BUFFER: usize = 16 << 10;
/// The largest head and the largest trailers of a response, as over HTTP/1.
const MAX_HEAD_SIZE: u32 = 64 << 10;

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
                "can't connect to instance"
            );
            return Err(Cause::ConnectFailed);
        }
        Ok(Ok(stream)) => stream,
    };
    instance.stats.connections_opened.count();
    let _ = stream.set_nodelay(true); // fails only on a dead socket
    Ok(stream)
}

/// A connection for one HTTP/1 request at a time.
pub(crate) async fn h1(instance: &Instance, timeout: Duration) -> Result<Box<Conn>, Cause> {
    let stream = tcp(instance, timeout).await?;
    Ok(Box::new(Conn::new(stream, Instant::now())))
}

/// Opens connections for the requests that wait at the instance's pool, one after the other, until every waiter has one
/// under way. The task ends then, or with the worker's event loop.
pub(crate) fn h1_into_pool(instance: Arc<Instance>, worker: usize, timeout: Duration, pool_size: usize) {
    tokio::spawn(async move {
        let Some(pool) = instance.pool(worker) else { return };
        loop {
            let opened = h1(&instance, timeout).await;
            if !pool.connected(opened, Instant::now(), timeout, pool_size) {
                return;
            }
        }
    });
}

/// A connection for many HTTP/2 requests. It is open once the instance's settings have come: only then it is known how
/// many streams it allows, and that it speaks HTTP/2 at all.
pub(crate) async fn h2(instance: &Instance, timeout: Duration) -> Result<H2Conn, Cause> {
    let deadline = tokio::time::Instant::now() + timeout;
    let stream = tcp(instance, timeout).await?;
    let heard = Arc::<AtomicBool>::default();
    let opening = async {
        let (sender, mut connection) = Builder::new()
            .enable_push(false)
            .initial_max_send_streams(0)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEAD_SIZE)
            .handshake(InstanceIo::new(stream, heard.clone()))
            .await?;
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(end) => Poll::Ready(end.and(Err(h2::Reason::NO_ERROR.into()))),
            Poll::Pending if heard.load(Relaxed) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        Ok(H2Conn::start(sender, connection))
    };
    match tokio::time::timeout_at(deadline, opening).await {
        Ok(Ok(conn)) => Ok(conn),
        Ok(Err::<_, h2::Error>(error)) => {
            tracing::debug!(
                service = %instance.service,
                instance = %instance.id,
                error = &error as &dyn std::error::Error,
                "can't speak HTTP/2 with instance"
            );
            Err(Cause::ConnectFailed)
        }
        Err(_) => Err(Cause::ConnectTimeout),
    }
}
