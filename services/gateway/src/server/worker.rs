//! A worker: a thread with an event loop of its own, its share of the clients' connections, and its own connections to
//! the instances. Nothing of a request ever crosses from one worker to another.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::connection;
use super::swept_body::SweptBodies;
use crate::client_conn::{ClientConn, ConnCommand, ConnTimeouts};
use crate::error::{Cause, Failure};
use crate::gateway::Gateway;

/// How often connections are looked over: timeouts of connections are late by this much at most.
const SWEEP: Duration = Duration::from_millis(250);
/// Connections that are told to go away because there are too many, at one time.
const MAX_REFUSALS: usize = 64;

/// What a worker is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Serve,
    /// Finish what is in flight.
    Drain,
    /// End at once.
    Stop,
}

/// The accept loop's end of a worker.
pub(super) struct Worker {
    sockets: mpsc::UnboundedSender<Socket>,
    connections: Arc<AtomicUsize>,
}

/// A new connection.
struct Socket {
    stream: TcpStream,
    addr: SocketAddr,
    /// `None` where it is one too many.
    place: Option<Counted>,
}

impl Worker {
    /// Starts the thread. The receiver is done when it has ended, with an error where it died.
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
            // What is left is connections past their grace: they end here.
            drop(runtime);
            let _ = ended.send(()); // nobody waits where the server was dropped
        })?;
        Ok((Self { sockets, connections }, end))
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Hands a new connection over. It is counted here and not where it is served, so that those that are on their way
    /// count too.
    pub(super) fn give(&self, gateway: &Arc<Gateway>, stream: TcpStream, addr: SocketAddr) {
        let place = Counted::admit(gateway, &self.connections, addr.ip().to_canonical());
        // Fails only where the worker has ended, and the connection with it.
        let _ = self.sockets.send(Socket { stream, addr, place });
    }
}

async fn run(
    index: usize,
    gateway: &Arc<Gateway>,
    mut phase: watch::Receiver<Phase>,
    mut incoming: mpsc::UnboundedReceiver<Socket>,
) {
    let mut tasks = JoinSet::new();
    let mut refusals = 0;
    let mut clients: Vec<Weak<ClientConn>> = Vec::new();
    let bodies = Arc::new(SweptBodies::default());
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut draining = false;
    loop {
        tokio::select! {
            socket = incoming.recv(), if !incoming.is_closed() || !incoming.is_empty() => {
                let Some(Socket { stream, addr, place }) = socket else { continue };
                let refused = place.is_none();
                let Ok(stream) = tokio::net::TcpStream::from_std(stream) else { continue };
                let client = Arc::new(ClientConn::new(gateway.clone(), index, addr));
                if refused && refusals >= MAX_REFUSALS {
                    continue;
                }
                refusals += usize::from(refused);
                if draining {
                    client.send(ConnCommand::Drain);
                }
                clients.push(Arc::downgrade(&client));
                let bodies = bodies.clone();
                tasks.spawn(async move {
                    if refused {
                        let failure = Failure::new(Cause::TooManyConnections);
                        client.gateway.refused(failure.cause);
                        connection::refuse(stream, &client, &failure).await;
                    } else {
                        connection::serve(stream, client, bodies).await;
                    }
                    drop(place);
                    refused
                });
            }
            Some(ended) = tasks.join_next() => match ended {
                Ok(refused) => refusals -= usize::from(refused),
                Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "a connection's task died"),
            },
            _ = sweep.tick() => {
                let now = Instant::now();
                bodies.sweep(gateway.millis(now), gateway.config.timeouts.idle);
                sweep_clients(gateway, &mut clients, now);
                gateway.sweep_pools(index, now);
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

/// Ends what has been in one state for too long.
fn sweep_clients(gateway: &Gateway, clients: &mut Vec<Weak<ClientConn>>, now: Instant) {
    let timeouts = &gateway.config.timeouts;
    let limits = ConnTimeouts {
        request_header: timeouts.request_header,
        keep_alive: timeouts.keep_alive,
        idle: timeouts.idle,
    };
    clients.retain(|client| {
        let Some(client) = client.upgrade() else { return false };
        let command = client.overdue(now, &limits);
        if command != ConnCommand::Continue {
            client.send(command);
        }
        true
    });
}

/// One connection, counted until it ends.
struct Counted {
    gateway: Arc<Gateway>,
    worker: Arc<AtomicUsize>,
    /// `None` for a proxy of ours, which may have as many as it likes.
    client: Option<IpAddr>,
}

impl Counted {
    /// A place for one more connection; `None` where there are too many already. Called from one thread alone, so that
    /// nothing comes between the question and the count.
    fn admit(gateway: &Arc<Gateway>, worker: &Arc<AtomicUsize>, client: IpAddr) -> Option<Self> {
        if gateway.connections.load(Relaxed) >= gateway.config.limits.connections {
            return None;
        }
        let client = (!gateway.is_trusted(client)).then_some(client);
        if client.is_some_and(|client| !gateway.client_connections.begin(client)) {
            return None;
        }
        gateway.connections.fetch_add(1, Relaxed);
        worker.fetch_add(1, Relaxed);
        Some(Self { gateway: gateway.clone(), worker: worker.clone(), client })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gateway.connections.fetch_sub(1, Relaxed);
        self.worker.fetch_sub(1, Relaxed);
        if let Some(client) = self.client {
            self.gateway.client_connections.end(client);
        }
    }
}
