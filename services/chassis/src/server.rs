//! The accept loop: HTTP/1.1 and h2c, slow, stuck and idle connections timed out, a drain with a bound.
//!
//! Every connection is a task of the set that the loop owns; when the loop's future is dropped they end with it.

use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt;

pub use self::connection::Connection;
use self::connection::Impatient;

mod connection;
pub(crate) mod linger;

/// A request's head must be here after this long; also how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A peer that takes nothing of a reply for this long is given up on.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
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

/// Serves `app` until the drain begins, then finishes what is in flight, within the grace.
pub async fn serve(listener: TcpListener, app: Router, drain: Drain) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_TIMEOUT);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut begun = pin!(drain.begun());
    loop {
        let stream = tokio::select! {
            () = &mut begun => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => { pause_after(&error).await; continue }
            },
            Some(_) = connections.join_next() => continue,
        };
        let _ = stream.set_nodelay(true); // refused only on a dead socket
        let connection = Connection::default();
        let of = connection.clone();
        let service = app.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(of.clone());
            request
        });
        let io = TokioIo::new(Impatient::new(stream, WRITE_TIMEOUT));
        let served = builder.serve_connection_with_upgrades(io, TowerToHyperService::new(service));
        let served = graceful.watch(served.into_owned());
        connections.spawn(async move {
            tokio::select! {
                _ = served => {}
                () = connection.ended() => {}
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(drain.grace(), graceful.shutdown()).await.is_err() {
        tracing::warn!(left = connections.len(), "requests were cut off: shutdown_grace is over");
    }
}

async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(error = error as &dyn std::error::Error, "can't accept connections");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}
