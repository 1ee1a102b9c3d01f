//! The accept loop of HTTP/1.1 and h2c: timeouts for slow, stuck and idle connections; limits on their number, on what
//! each of them buffers, and on HTTP/2 requests in flight; a drain with a deadline.
//!
//! Each connection is a task of a set that the loop owns, so dropping the loop closes them all. A client that connects
//! and sends nothing is cut off like a slow one: it holds a file descriptor, and those are few. A port that is full
//! closes the connection that has been idle for longest. If none is idle, a few more connections are accepted that get
//! an answer to health checks, for an orchestrator must not restart a process for being busy; their other requests wait
//! until a connection ends.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hubspoke_tls::{Generation, MaybeTls, TlsSocket};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinError, JoinSet};

use self::accept::SpareFile;
pub use self::accept::pause_after_accept_error;
use self::client_stream::ClientStream;
use self::connection_service::ConnectionService;
use self::connection_state::ConnectionState;
use self::connection_table::{Admission, ConnectionTable};
pub(crate) use self::discard::DiscardOnDrop;
pub use self::drain::Drain;
pub use self::file_limit::raise_file_limit;
pub use self::handle::ConnectionHandle;
pub use self::limits::{CONTROL_CONNECTIONS, MAX_HEAD, PortLimits, memory_bounds, within_file_limit};
use crate::tls::ServerTls;

mod accept;
mod client_stream;
mod connection_service;
mod connection_state;
mod connection_table;
mod discard;
mod drain;
mod file_limit;
mod handle;
pub mod limits;
mod response_body;

/// How long a client may read nothing of a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long after its certificate a connection ends when it is next idle. By then, its clients have a new one, too, and
/// have retired theirs.
const RETIRED_IDLE: Duration = Duration::from_secs(15);
/// How long a request may take from then on: a stream's client connects again.
const RETIRED_STREAM: Duration = Duration::from_secs(600);
/// How long a connection of the reserve lasts.
const RESERVE_TIME: Duration = Duration::from_secs(5);

/// Serves `app` until the drain starts, then finishes the requests in flight, within the drain's grace. With `tls`, only
/// connections with mutual TLS are served.
pub async fn serve(
    limits: PortLimits,
    listener: TcpListener,
    app: Router,
    drain: Drain,
    tls: Option<ServerTls>,
) {
    let mut server = Server::new(limits, app, tls.map(|tls| ServerHandshakes { tls, drain: drain.clone() }));
    {
        let mut draining = pin!(drain.started());
        loop {
            tokio::select! {
                () = &mut draining => break,
                () = server.accept(&listener) => {}
            }
        }
    }
    drop(listener);
    let Server { graceful, tasks, .. } = server;
    if tokio::time::timeout(drain.grace(), graceful.shutdown()).await.is_err() {
        let connections = tasks.len();
        tracing::warn!(connections, "shutdown_grace is over; requests in flight were cut off");
    }
}

/// The connections of one port.
struct Server {
    limits: PortLimits,
    app: Router,
    handshakes: Option<ServerHandshakes>,
    builder: auto::Builder<TokioExecutor>,
    /// The HTTP/2 requests that may be in flight.
    streams: Arc<Semaphore>,
    table: ConnectionTable,
    tasks: JoinSet<()>,
    graceful: GracefulShutdown,
    spare: SpareFile,
    /// A connection that was accepted and waits for another one to end.
    waiting: Option<(TcpStream, SocketAddr)>,
    warned_full: bool,
}

impl Server {
    fn new(limits: PortLimits, app: Router, handshakes: Option<ServerHandshakes>) -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(limits::MAX_HEAD);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(limits.head)
            .max_concurrent_streams(limits::MAX_STREAMS)
            .max_header_list_size(limits::MAX_HEADER_LIST)
            .initial_connection_window_size(limits::CONNECTION_WINDOW)
            .initial_stream_window_size(limits::CONNECTION_WINDOW)
            .max_send_buf_size(limits::STREAM_SEND_BUFFER)
            .max_local_error_reset_streams(limits::MAX_RESET_STREAMS);
        Self {
            limits,
            app,
            handshakes,
            builder,
            streams: Arc::new(Semaphore::new(limits.streams)),
            table: ConnectionTable::new(limits),
            tasks: JoinSet::new(),
            graceful: GracefulShutdown::new(),
            spare: SpareFile::default(),
            waiting: None,
            warned_full: false,
        }
    }

    /// Takes one step: a connection comes, waits, or ends. May be dropped while it waits.
    async fn accept(&mut self, listener: &TcpListener) {
        if let Some(wait) = self.admit_waiting() {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
            }
            return;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(connection) => self.waiting = Some(connection),
                Err(error) if self.spare.release(&error) => {}
                Err(error) => pause_after_accept_error(&error).await,
            },
            Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
        }
    }

    /// Serves the connection that waits, if there is one; else returns how long it has to wait.
    fn admit_waiting(&mut self) -> Option<Duration> {
        let (stream, addr) = self.waiting.take()?;
        let client = self.table.client(addr.ip());
        let out_of_files = !self.spare.refill();
        let admission = self.table.admit(&client, out_of_files, Instant::now());
        if admission != Admission::Serve && !std::mem::replace(&mut self.warned_full, true) {
            tracing::warn!(
                connections = self.table.len(),
                client = %client.address,
                "the connection limit is reached; idle connections are closed, or new ones wait"
            );
        }
        let reserved = match admission {
            Admission::Serve => false,
            Admission::Reserve => true,
            Admission::Wait(time) => {
                self.waiting = Some((stream, addr));
                return Some(time);
            }
        };
        let connection = Arc::new(ConnectionState::new(client, reserved));
        self.start(stream, addr, connection);
        None
    }

    fn start(&mut self, stream: TcpStream, addr: SocketAddr, connection: Arc<ConnectionState>) {
        let _ = stream.set_nodelay(true); // fails only on a dead socket
        let handle = ConnectionHandle::new(addr);
        let mut service = ConnectionService {
            app: self.app.clone(),
            connection: connection.clone(),
            handle: handle.clone(),
            streams: self.streams.clone(),
            streams_per_client: self.limits.streams_per_client,
        };
        let socket = ClientStream::new(stream, connection.clone(), WRITE_TIMEOUT);
        let mut builder = self.builder.clone();
        if connection.is_reserved() {
            builder.http1().keep_alive(false);
        }
        let generation = self.handshakes.as_ref().map(|handshakes| handshakes.tls.generation());
        let (handshakes, watcher) = (self.handshakes.clone(), self.graceful.watcher());
        let served = async move {
            let socket = match handshakes {
                None => MaybeTls::Plain(socket),
                Some(handshakes) => {
                    let Some((socket, names)) = handshakes.shake(socket).await else { return };
                    service.handle = service.handle.with_certificate(names);
                    MaybeTls::Tls(Box::new(socket))
                }
            };
            let service = TowerToHyperService::new(service);
            let served = builder.serve_connection_with_upgrades(TokioIo::new(socket), service);
            let _ = watcher.watch(served.into_owned()).await; // a connection that breaks is nobody's failure
        };
        let served = with_first_head_timeout(served, self.limits.head, connection.clone());
        let state = connection.clone();
        let task = self.tasks.spawn(async move {
            tokio::select! {
                () = served => {}
                () = handle.closed() => {}
                () = retired(generation, &state) => {}
                () = reserve_ended(&state), if state.is_reserved() => {}
            }
        });
        self.table.add(task, connection);
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        self.spare.refill(); // before another port takes the file that is free now
        self.table.remove(ended.map_or_else(|error| error.id(), |(id, ())| id));
        self.warned_full &= self.table.len() > self.limits.connections / 2;
    }
}

/// Takes handshakes until the drain starts.
#[derive(Clone)]
struct ServerHandshakes {
    tls: ServerTls,
    drain: Drain,
}

impl ServerHandshakes {
    /// The socket after the handshake, and the client's names; `None` if it fails.
    async fn shake(&self, socket: ClientStream) -> Option<(TlsSocket<ClientStream>, Vec<String>)> {
        let shaken = tokio::select! {
            shaken = self.tls.accept(socket) => shaken,
            () = self.drain.started() => return None,
        };
        shaken
            .inspect_err(|error| {
                tracing::debug!(error = error as &dyn std::error::Error, "a TLS handshake failed");
            })
            .ok()
    }
}

/// Completes when a connection has outlived its certificate for too long. If it is idle by then, it ends as soon as that
/// is replaced; streams have some time.
async fn retired(generation: Option<Generation>, connection: &ConnectionState) {
    let Some(generation) = generation else { return std::future::pending().await };
    generation.ended().await;
    tokio::time::sleep(RETIRED_IDLE).await;
    connection.close_if_idle();
    tokio::time::sleep(RETIRED_STREAM).await;
}

/// Completes when a connection has been in the reserve for too long.
async fn reserve_ended(connection: &ConnectionState) {
    if tokio::time::timeout(RESERVE_TIME, connection.admitted()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

/// Serves a connection, and drops it if the first request's head does not arrive in time. hyper's own timeout for heads
/// starts only after the bytes that tell HTTP/1 from HTTP/2.
async fn with_first_head_timeout<T>(
    served: impl Future<Output = T>,
    head: Duration,
    connection: Arc<ConnectionState>,
) {
    let mut served = pin!(served);
    if tokio::time::timeout(head, &mut served).await.is_err() && connection.requested() {
        served.await;
    }
}

#[cfg(test)]
mod tests;
