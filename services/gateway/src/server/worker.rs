//! A worker: a thread with its own event loop, its share of the client connections, and its own connections to
//! instances. A request never moves from one worker to another.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::connection;
use super::idle_clients::{self, IdleClients};
use super::swept_body::SweptBodies;
use super::tls::Handshakes;
use crate::client_conn::{ClientConn, ConnCommand};
use crate::clients::{ClientUse, ConnectionSlot};
use crate::error::{Cause, RequestFailure};
use crate::gateway::Gateway;

/// How often connections are checked for timeouts, which are late by this much at most.
const SWEEP: Duration = Duration::from_millis(250);
/// Maximum number of connections over the limit that get a 503 at the same time; further ones are closed.
const MAX_REFUSALS: usize = 64;

/// The phase of a worker's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Serve,
    /// Finishes the requests in flight.
    Drain,
    /// Ends at once.
    Stop,
}

/// The accept loop's handle on a worker.
pub(super) struct WorkerHandle {
    sockets: mpsc::UnboundedSender<AcceptedSocket>,
    connections: Arc<AtomicUsize>,
}

/// A new connection.
struct AcceptedSocket {
    stream: TcpStream,
    ip: IpAddr,
    /// For a connection to the port for TLS.
    tls: Option<Handshakes>,
    /// `None` if it exceeds a limit.
    slot: Option<ConnSlot>,
}

impl WorkerHandle {
    /// Starts the thread. The receiver completes when it has ended, with an error if it panicked.
    pub(super) fn start(
        index: usize,
        gateway: Arc<Gateway>,
        phase: watch::Receiver<Phase>,
    ) -> std::io::Result<(Self, oneshot::Receiver<()>)> {
        let (sockets, incoming) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let (ended, end) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            runtime.block_on(run(index, &gateway, phase, incoming));
            // Closes the connections that are left, which have had their grace.
            drop(runtime);
            let _ = ended.send(()); // fails if the server was dropped
        })?;
        Ok((Self { sockets, connections }, end))
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Hands a connection over. It is counted here, not by the worker, so that connections on their way count too.
    pub(super) fn hand_over(
        &self,
        gateway: &Arc<Gateway>,
        stream: TcpStream,
        addr: SocketAddr,
        tls: Option<Handshakes>,
    ) {
        let ip = addr.ip().to_canonical();
        let slot = ConnSlot::acquire(gateway, &self.connections, ip);
        // Fails only if the worker has ended, which closes the connection.
        let _ = self.sockets.send(AcceptedSocket { stream, ip, tls, slot });
    }
}

async fn run(
    index: usize,
    gateway: &Arc<Gateway>,
    mut phase: watch::Receiver<Phase>,
    mut incoming: mpsc::UnboundedReceiver<AcceptedSocket>,
) {
    let mut tasks = JoinSet::new();
    let mut refusals = 0;
    let mut clients: Vec<Weak<ClientConn>> = Vec::new();
    let (mut idle, mut idle_tls) = (IdleClients::default(), IdleClients::with_tls());
    let bodies = Arc::new(SweptBodies::default());
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut draining = false;
    loop {
        tokio::select! {
            socket = incoming.recv(), if !incoming.is_closed() || !incoming.is_empty() => {
                let Some(AcceptedSocket { stream, ip, tls, slot }) = socket else { continue };
                let refused = slot.is_none();
                let Ok(stream) = tokio::net::TcpStream::from_std(stream) else { continue };
                let client_use = slot.as_ref().and_then(ConnSlot::client_use);
                let client = Arc::new(ClientConn::new(gateway.clone(), index, ip, client_use, tls.is_some()));
                // In clear text, the client could not read a refusal.
                if refused && (refusals >= MAX_REFUSALS || tls.is_some()) {
                    gateway.refused_unread(ip, &Cause::TooManyConnections.into(), false);
                    continue;
                }
                refusals += usize::from(refused);
                if draining {
                    client.send(ConnCommand::Drain);
                }
                if idle_clients::is_crowded(gateway.connections.load(Relaxed), gateway.config.limits.connections) {
                    idle.close_one(&clients, Instant::now());
                }
                let (used, most) = gateway.clients.tls_connections();
                if tls.is_some() && idle_clients::is_crowded(used, most) {
                    idle_tls.close_one(&clients, Instant::now());
                }
                clients.push(Arc::downgrade(&client));
                let bodies = bodies.clone();
                tasks.spawn(async move {
                    if refused {
                        let failure = RequestFailure::new(Cause::TooManyConnections);
                        connection::refuse(stream, &client, &failure).await;
                    } else {
                        let _ = stream.set_nodelay(true); // fails only on a dead socket
                        match tls {
                            None => connection::serve(stream, client, bodies).await,
                            // Boxed, so that the tasks of other connections stay small.
                            Some(tls) => Box::pin(connection::serve_tls(stream, tls, client, bodies)).await,
                        }
                    }
                    drop(slot);
                    refused
                });
            }
            Some(ended) = tasks.join_next() => match ended {
                Ok(refused) => refusals -= usize::from(refused),
                Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "connection task panicked"),
            },
            _ = sweep.tick() => {
                let now = Instant::now();
                bodies.sweep(gateway.millis(now), gateway.config.timeouts.idle);
                sweep_clients(gateway, &mut clients, now);
                gateway.memory.adapt_reads();
                gateway.sweep_pools(index, now);
                gateway.sweep_refusals(now);
            }
            changed = phase.changed() => {
                let now = if changed.is_ok() { *phase.borrow_and_update() } else { Phase::Stop };
                match now {
                    Phase::Serve => {}
                    Phase::Drain => {
                        draining = true;
                        clients.iter().filter_map(Weak::upgrade).for_each(|client| client.send(ConnCommand::Drain));
                    }
                    Phase::Stop => break,
                }
            }
        }
        if draining && tasks.is_empty() && incoming.is_closed() && incoming.is_empty() {
            break;
        }
    }
}

/// Sends a command to each connection that has been in one state for too long.
fn sweep_clients(gateway: &Gateway, clients: &mut Vec<Weak<ClientConn>>, now: Instant) {
    clients.retain(|client| {
        let Some(client) = client.upgrade() else { return false };
        let command = client.overdue(now, &gateway.config.timeouts);
        if command != ConnCommand::Continue {
            client.send(command);
        }
        client.resume();
        true
    });
}

/// One connection that counts towards the limits until this is dropped.
struct ConnSlot {
    gateway: Arc<Gateway>,
    worker: Arc<AtomicUsize>,
    /// `None` for a trusted proxy, whose connections are not limited.
    client: Option<ConnectionSlot>,
}

impl ConnSlot {
    /// A slot for one more connection, unless a limit is reached. Called from one thread alone, so nothing happens
    /// between the check and the count.
    fn acquire(gateway: &Arc<Gateway>, worker: &Arc<AtomicUsize>, client: IpAddr) -> Option<Self> {
        if gateway.connections.load(Relaxed) >= gateway.config.limits.connections {
            return None;
        }
        let client = match gateway.is_trusted(client) {
            true => None,
            false => Some(gateway.clients.connect(gateway.clients.of(client))?),
        };
        gateway.connections.fetch_add(1, Relaxed);
        worker.fetch_add(1, Relaxed);
        Some(Self { gateway: gateway.clone(), worker: worker.clone(), client })
    }

    fn client_use(&self) -> Option<Arc<ClientUse>> {
        self.client.as_ref().map(ConnectionSlot::client)
    }
}

impl Drop for ConnSlot {
    fn drop(&mut self) {
        self.gateway.connections.fetch_sub(1, Relaxed);
        self.worker.fetch_sub(1, Relaxed);
    }
}
