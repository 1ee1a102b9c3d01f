//! A port with as many connections as it may have, and heads of the longest length.

use tokio::net::TcpSocket;

use super::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

async fn send(addr: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Sends a request for a response that never ends, and waits for its head.
async fn busy(addr: SocketAddr) -> TcpStream {
    let mut stream = send(addr, b"GET /busy HTTP/1.1\r\nHost: x\r\n\r\n").await;
    in_time("the head", stream.read_exact(&mut [0; 12])).await.unwrap();
    stream
}

async fn response(addr: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    read_to_end(send(addr, request.as_bytes()).await).await
}

#[tokio::test]
async fn the_connection_that_has_been_idle_for_longest_is_closed_for_a_new_one() {
    let (addr, _drain) = start(Duration::from_secs(60), 3).await;
    let busy = busy(addr).await;
    // An idle one that has had a request, and one with half a head.
    let mut idle = send(addr, GET).await;
    in_time("a response", idle.read_exact(&mut [0; 12])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let unfinished = send(addr, &GET[..20]).await;
    for closed in [idle, unfinished] {
        assert!(response(addr, "/").await.ends_with("served"));
        read_to_end(closed).await;
        let mut next = send(addr, GET).await; // takes the place again
        in_time("a response", next.read_exact(&mut [0; 12])).await.unwrap();
        std::mem::forget(next);
    }
    let mut end = [0; 4096];
    let head = busy.try_read(&mut end).map_or(0, |read| read);
    assert!(
        busy.try_read(&mut end).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
        "{head}"
    );
}

#[tokio::test]
async fn a_port_full_of_busy_connections_answers_health_checks() {
    let (addr, _drain) = start(Duration::from_secs(60), 2).await;
    let all = [busy(addr).await, busy(addr).await];
    for _ in 0..3 {
        assert!(response(addr, "/livez").await.ends_with("live"));
        let refused = response(addr, "/").await;
        assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("too-many-connections"), "{refused}");
    }
    // Connections that send nothing don't use the reserve up.
    let silent: Vec<_> = futures_util::future::join_all((0..40).map(|_| TcpStream::connect(addr))).await;
    assert!(response(addr, "/livez").await.ends_with("live"));
    drop((all, silent));
    loop {
        if response(addr, "/").await.ends_with("served") {
            break;
        }
    }
}

#[tokio::test]
async fn one_client_address_leaves_connections_to_others() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (_start_drain, draining) = watch::channel(false);
    let never = async || Body::from_stream(futures_util::stream::pending::<std::io::Result<Bytes>>());
    let app = Router::new().route("/busy", get(never)).route("/", get(async || "served"));
    let drain = Drain::new(draining, Duration::from_secs(10));
    let limits = PortLimits { connections: 4, per_client: 3, ..PortLimits::new(4) };
    tokio::spawn(serve(limits, listener, app, drain, None));
    let all = [busy(addr).await, busy(addr).await, busy(addr).await];
    assert!(response(addr, "/").await.starts_with("HTTP/1.1 503"));
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(addr).await.unwrap();
    other.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(read_to_end(other).await.ends_with("served"));
    drop(all);
}

#[tokio::test]
async fn a_head_has_a_longest_length_and_its_client_reads_so() {
    let (addr, _drain) = start(Duration::from_secs(60), 100).await;
    let head = |length: usize| {
        let line = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: ";
        format!("{line}{}\r\n\r\n", "x".repeat(length - line.len() - 4))
    };
    for (length, status) in
        [(8 << 10, "200"), (31 << 10, "200"), (33 << 10, "431"), (200 << 10, "431"), (900 << 10, "431")]
    {
        let got = read_to_end(send(addr, head(length).as_bytes()).await).await;
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{length}: {got}");
    }
    // Unfinished ones, too, and trailers.
    let unfinished = &head(390 << 10)[..389 << 10];
    let trailers =
        format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{unfinished}");
    for sent in [unfinished, &trailers] {
        let mut stream = send(addr, sent.as_bytes()).await;
        let mut status = [0; 12];
        in_time("a response", stream.read_exact(&mut status)).await.unwrap();
        assert!(b"HTTP/1.1 4".iter().zip(&status).all(|(a, b)| a == b), "{status:?}");
    }
}
