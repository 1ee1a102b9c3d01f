//! The accept loop of HTTP/1.1 and h2c: timeouts for slow, stuck and idle connections, a limit on their number, a
//! drain with a deadline.
//!
//! Each connection is a task of a set that the loop owns, so dropping the loop closes them all. A client that connects
//! and sends nothing is cut off like a slow one: it holds a file descriptor, and those are few.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::Service;

pub use self::accept::pause_after_accept_error;
pub(crate) use self::discard::DiscardOnDrop;
pub use self::drain::Drain;
pub use self::file_limit::raise_file_limit;
pub use self::handle::ConnectionHandle;
use self::write_timeout::WriteTimeout;

mod accept;
mod discard;
mod drain;
mod file_limit;
mod handle;
mod write_timeout;

/// Time for a request's head to arrive, and for an idle connection to send another one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may read nothing of a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most connections to one port, if the limit of open files allows as many.
const MAX_CONNECTIONS: usize = 10_000;

/// The limits of a port.
#[derive(Debug, Clone, Copy)]
struct PortLimits {
    /// Time for a request's head to arrive.
    head: Duration,
    /// Connections; more wait to be accepted.
    connections: usize,
}

/// Serves `app` until the drain starts, then finishes the requests in flight, within the drain's grace.
pub async fn serve(listener: TcpListener, app: Router, drain: Drain) {
    // A quarter of the files is for everything else.
    let connections = MAX_CONNECTIONS.min(raise_file_limit() / 4 * 3);
    serve_with(PortLimits { head: HEAD_TIMEOUT, connections }, listener, app, drain).await;
}

async fn serve_with(limits: PortLimits, listener: TcpListener, app: Router, drain: Drain) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.head);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(limits.head);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut draining = pin!(drain.started());
    let mut warned_full = false;
    loop {
        let has_room = connections.len() < limits.connections;
        let stream = tokio::select! {
            () = &mut draining => break,
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => { pause_after_accept_error(&error).await; continue }
            },
            Some(_) = connections.join_next() => {
                warned_full &= connections.len() > limits.connections / 2;
                continue;
            }
        };
        let _ = stream.set_nodelay(true); // fails only on a dead socket
        let requested = Arc::new(AtomicBool::new(false));
        let handle = ConnectionHandle::default();
        let service =
            ConnectionService { app: app.clone(), requested: requested.clone(), handle: handle.clone() };
        let io = TokioIo::new(WriteTimeout::new(stream, WRITE_TIMEOUT));
        let served = builder.serve_connection_with_upgrades(io, TowerToHyperService::new(service));
        let served = with_first_head_timeout(graceful.watch(served.into_owned()), limits.head, requested);
        connections.spawn(async move {
            tokio::select! {
                () = served => {}
                () = handle.closed() => {}
            }
        });
        if connections.len() == limits.connections && !std::mem::replace(&mut warned_full, true) {
            tracing::warn!(
                connections = limits.connections,
                "the connection limit is reached; new connections wait"
            );
        }
    }
    drop(listener);
    if tokio::time::timeout(drain.grace(), graceful.shutdown()).await.is_err() {
        let connections = connections.len();
        tracing::warn!(connections, "shutdown_grace is over; requests in flight were cut off");
    }
}

/// Serves a connection, and drops it if the first request's head does not arrive in time. hyper's own timeout for heads
/// starts only after the bytes that tell HTTP/1 from HTTP/2.
async fn with_first_head_timeout<T>(
    connection: impl Future<Output = T>,
    head: Duration,
    requested: Arc<AtomicBool>,
) {
    let mut connection = pin!(connection);
    if tokio::time::timeout(head, &mut connection).await.is_err() && requested.load(Relaxed) {
        connection.await;
    }
}

/// The app on one connection. Records that a request came, and gives each request the connection's handle.
#[derive(Clone)]
struct ConnectionService {
    app: Router,
    requested: Arc<AtomicBool>,
    handle: ConnectionHandle,
}

impl Service<Request<Incoming>> for ConnectionService {
    type Response = <Router as Service<Request<Incoming>>>::Response;
    type Error = <Router as Service<Request<Incoming>>>::Error;
    type Future = <Router as Service<Request<Incoming>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(())) // routers are always ready
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        self.requested.store(true, Relaxed);
        request.extensions_mut().insert(self.handle.clone());
        self.app.call(request)
    }
}

#[cfg(test)]
mod tests;
