//! The server of a control port: for the registry's heartbeats and pushes, which are few and short.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Pause after a failure to accept, such as running out of file descriptors.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest head, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// The bounds of a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Most connections at once. Others wait in the kernel.
    pub(super) connections: usize,
    /// How long a connection may last.
    pub(super) time: Duration,
}

/// Serves until it is dropped, and its connections with it.
pub(super) async fn serve(listener: TcpListener, routes: Router, limits: Limits) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < limits.connections => {
                let Ok((stream, _)) = accepted else {
                    sleep(PAUSE).await;
                    continue;
                };
                let service = TowerToHyperService::new(routes.clone());
                let mut http = http1::Builder::new();
                let served = http.max_buf_size(MAX_HEAD).serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move {
                    let _ = timeout(limits.time, served).await; // whoever called notices by itself
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use hubspoke_testkit::DEADLINE;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    #[tokio::test]
    async fn connections_that_send_nothing_end_and_make_room_for_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let routes = Router::new().route("/", get(async || "answered"));
        let limits = Limits { connections: 2, time: Duration::from_millis(300) };
        let _server = AbortOnDropHandle::new(tokio::spawn(serve(listener, routes, limits)));
        let mut idle = Vec::new();
        for _ in 0..2 {
            idle.push(TcpStream::connect(addr).await.unwrap());
        }
        let mut third = TcpStream::connect(addr).await.unwrap();
        third.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        timeout(DEADLINE, third.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("answered"), "{answer}");
        let mut ended = 0;
        for mut stream in idle {
            ended +=
                timeout(DEADLINE, stream.read(&mut [0])).await.unwrap().map_or(1, |n| usize::from(n == 0));
        }
        assert_eq!(ended, 2);
    }
}
