//! Opens connections to instances.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::conn::Conn;
use super::instance::Instance;
use super::pool::H2Sender;
use crate::error::Cause;

/// An HTTP/2 connection is pinged this often, and closed if an answer takes longer than `PING_TIMEOUT`.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

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
        .max_header_list_size(MAX_HEAD_SIZE)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Cause::ConnectFailed)
}
