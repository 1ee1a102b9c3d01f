//! Servers on free ports.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use crate::raw::RawConn;

/// A server on a free port of 127.0.0.1. Dropping it closes the port and every connection of a script.
#[derive(Debug)]
pub struct TestServer {
    /// Where it listens.
    pub addr: SocketAddr,
    _task: JoinSet<()>,
}

impl TestServer {
    /// Serves `routes`.
    pub async fn start(routes: Router) -> Self {
        Self::on(listener().await, routes)
    }

    /// Serves `routes` on a listener that is bound already.
    pub fn on(listener: TcpListener, routes: Router) -> Self {
        let addr = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { addr, _task: task }
    }

    /// Runs `script` on each connection, all at the same time.
    pub async fn script<F>(script: impl Fn(RawConn) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::script_on(listener().await, script)
    }

    /// [`TestServer::script`] on a listener that is bound already.
    pub fn script_on<F>(listener: TcpListener, script: impl Fn(RawConn) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let addr = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(script(RawConn { stream }));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { addr, _task: task }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// A port on which nothing listens, and that no other process is given while this lives: connections to it are
/// refused. A server that asks for this very port gets it.
#[derive(Debug)]
pub struct ClosedPort(TcpSocket);

impl ClosedPort {
    /// Reserves a free port of 127.0.0.1.
    #[allow(clippy::new_without_default, reason = "it takes a port")]
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }
}
