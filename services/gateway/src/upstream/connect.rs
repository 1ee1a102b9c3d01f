//! Opens connections to instances.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, Instant};

use h2::client::Builder;
use hubspoke_tls::{Generation, MaybeTls};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_util::io::InspectReader;

use super::conn::Conn;
use super::h2_conn::H2Conn;
use super::instance::Instance;
use crate::error::Cause;
use crate::memory::{Budget, STREAM_WINDOW};

/// How much of all responses an instance may send ahead: ample, so that a response that its client does not read delays
/// no other.
const CONNECTION_WINDOW: u32 = 64 << 20;
/// The most that h2 keeps of one request until the instance's socket takes it.
const SEND_BUFFER: usize = 16 << 10;
/// The largest head and the largest trailers of a response, as over HTTP/1.
const MAX_HEAD_SIZE: u32 = 64 << 10;
/// A host that vanishes sends no FIN: an idle connection to it is closed after two minutes, and so is one with bytes on
/// it that it does not acknowledge.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(20))
    .with_retries(3);
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(120);

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
    // They fail only on a dead socket.
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(&stream);
    let _ = socket.set_tcp_keepalive(&KEEPALIVE);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    Ok(stream)
}

/// The instance's socket. If the gateway has an identity it is TLS, and the instance must be one of its service by its
/// certificate, at whatever address.
async fn socket(
    instance: &Instance,
    timeout: Duration,
    protocol: &[u8],
) -> Result<(MaybeTls<TcpStream>, Option<Generation>), Cause> {
    let deadline = tokio::time::Instant::now() + timeout;
    let stream = tcp(instance, timeout).await?;
    let Some(identity) = &instance.identity else { return Ok((MaybeTls::Plain(stream), None)) };
    let generation = identity.generation();
    let (names, protocols) = ([&*instance.service], [protocol]);
    let shaking = identity.connect(&names, &protocols, stream);
    match tokio::time::timeout_at(deadline, shaking).await {
        Ok(Ok(stream)) => Ok((MaybeTls::Tls(Box::new(stream)), Some(generation))),
        Ok(Err(error)) => {
            tracing::warn!(
                service = %instance.service,
                instance = %instance.id,
                error = &error as &dyn std::error::Error,
                "TLS handshake with instance failed"
            );
            Err(Cause::ConnectFailed)
        }
        Err(_) => Err(Cause::ConnectTimeout),
    }
}

/// A connection for one HTTP/1 request at a time.
pub(crate) async fn h1(instance: &Instance, timeout: Duration) -> Result<Box<Conn>, Cause> {
    let (stream, generation) = socket(instance, timeout, b"http/1.1").await?;
    Ok(Box::new(Conn::new(stream, generation, Instant::now())))
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
pub(crate) async fn h2(
    instance: &Instance,
    timeout: Duration,
    buffers: &Arc<Budget>,
) -> Result<H2Conn, Cause> {
    let deadline = tokio::time::Instant::now() + timeout;
    let (stream, generation) = socket(instance, timeout, b"h2").await?;
    // The first that an instance sends are its settings (RFC 9113, 3.4).
    let heard = Arc::<AtomicBool>::default();
    let hears = heard.clone();
    let stream = InspectReader::new(stream, move |bytes: &[u8]| {
        if !bytes.is_empty() {
            hears.store(true, Relaxed);
        }
    });
    let opening = async {
        let (sender, mut connection) = Builder::new()
            .enable_push(false)
            .initial_max_send_streams(0)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEAD_SIZE)
            .handshake(stream)
            .await?;
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(end) => Poll::Ready(end.and(Err(h2::Reason::NO_ERROR.into()))),
            Poll::Pending if heard.load(Relaxed) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        Ok(H2Conn::start(sender, connection, buffers.clone(), generation))
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use hubspoke_protocol::ServiceInfo;

    use super::*;

    #[tokio::test]
    async fn a_connection_to_a_vanished_host_ends_in_two_minutes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let info = ServiceInfo::new("log", listener.local_addr().unwrap().to_string());
        let stream = tcp(&Instance::new(&info, 1, None), Duration::from_secs(5)).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        let (time, interval) =
            (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
        assert_eq!(time + interval * socket.tcp_keepalive_retries().unwrap(), Duration::from_secs(120));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(120)));
    }
}
