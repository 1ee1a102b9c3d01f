//! The accept loop: HTTP/1.1 and h2c, slow, stuck and idle connections timed out, a bound on how many there are, a
//! drain with a bound.
//!
//! Every connection is a task of the set that the loop owns; when the loop's future is dropped they end with it.
//! Whoever connects and says nothing, or too little to tell which HTTP it is, is cut off like one who is slow: it
//! holds a file descriptor, and those are few.

use std::io;
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
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::Service;

pub use self::connection::Connection;
use self::connection::Impatient;

mod connection;
pub(crate) mod linger;

/// A request's head must be here after this long; also how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A peer that takes nothing of a reply for this long is given up on.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most connections to one port, where the limit of open files allows for them.
const MAX_CONNECTIONS: usize = 10_000;
/// Pause after a failed accept (no file descriptors left, mostly): connections that end make room.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Tells servers when to drain, and how long they may take.
#[derive(Debug, Clone)]
pub struct Drain {
    begin: watch::Receiver<bool>,
    grace: Duration,
}

impl Drain {
    /// A drain that begins when `true` is sent, or when the sender is gone.
    pub fn new(begin: watch::Receiver<bool>, grace: Duration) -> Self {
        Self { begin, grace }
    }

    /// Done when it is time to take no more connections and to finish what is in flight.
    pub async fn begun(&self) {
        let _ = self.begin.clone().wait_for(|begun| *begun).await;
    }

    /// How long requests in flight may take from then on.
    pub fn grace(&self) -> Duration {
        self.grace
    }
}

/// What a port takes.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Time for a request's head.
    head: Duration,
    /// Connections; further ones wait to be accepted.
    connections: usize,
}

/// Serves `app` until the drain begins, then finishes what is in flight, within the grace.
pub async fn serve(listener: TcpListener, app: Router, drain: Drain) {
    // A quarter of the files is left for everything that is no connection to here.
    let connections = MAX_CONNECTIONS.min(raise_file_limit() / 4 * 3);
    serve_within(Limits { head: HEAD_TIMEOUT, connections }, listener, app, drain).await;
}

async fn serve_within(limits: Limits, listener: TcpListener, app: Router, drain: Drain) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.head);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(limits.head);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut begun = pin!(drain.begun());
    let mut said_full = false;
    loop {
        let room = connections.len() < limits.connections;
        let stream = tokio::select! {
            () = &mut begun => break,
            accepted = listener.accept(), if room => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => { pause_after(&error).await; continue }
            },
            Some(_) = connections.join_next() => {
                said_full &= connections.len() > limits.connections / 2;
                continue;
            }
        };
        let _ = stream.set_nodelay(true); // refused only on a dead socket
        let heard = Arc::new(AtomicBool::new(false));
        let connection = Connection::default();
        let service = Heard { app: app.clone(), heard: heard.clone(), connection: connection.clone() };
        let io = TokioIo::new(Impatient::new(stream, WRITE_TIMEOUT));
        let served = builder.serve_connection_with_upgrades(io, TowerToHyperService::new(service));
        let served = until_silent(graceful.watch(served.into_owned()), limits.head, heard);
        connections.spawn(async move {
            tokio::select! {
                () = served => {}
                () = connection.ended() => {}
            }
        });
        if connections.len() == limits.connections && !std::mem::replace(&mut said_full, true) {
            tracing::warn!(connections = limits.connections, "no more connections fit; new ones wait");
        }
    }
    drop(listener);
    if tokio::time::timeout(drain.grace(), graceful.shutdown()).await.is_err() {
        tracing::warn!(left = connections.len(), "requests were cut off: shutdown_grace is over");
    }
}

/// Serves a connection, but only for so long where no request comes. hyper times heads out by itself, but not before
/// the first bytes have told it which HTTP they are.
async fn until_silent<T>(connection: impl Future<Output = T>, head: Duration, heard: Arc<AtomicBool>) {
    let mut connection = pin!(connection);
    if tokio::time::timeout(head, &mut connection).await.is_err() && heard.load(Relaxed) {
        connection.await;
    }
}

/// The app, and whether it was asked for anything on this connection, which each request knows.
#[derive(Clone)]
struct Heard {
    app: Router,
    heard: Arc<AtomicBool>,
    connection: Connection,
}

impl Service<Request<Incoming>> for Heard {
    type Response = <Router as Service<Request<Incoming>>>::Response;
    type Error = <Router as Service<Request<Incoming>>>::Error;
    type Future = <Router as Service<Request<Incoming>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(())) // routers always are
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        self.heard.store(true, Relaxed);
        request.extensions_mut().insert(self.connection.clone());
        self.app.call(request)
    }
}

/// Asks for as many open files as this process may have; says how many that are. A connection is a file, and the
/// usual soft limit of 1,024 is for programs that still use `select`. The hard limit stays what it is.
pub fn raise_file_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::debug!(error = &error as &dyn std::error::Error, "the limit of open files stays as it is");
    }
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
}

async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(error = error as &dyn std::error::Error, "can't accept connections");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

#[cfg(test)]
mod tests;
