//! HTTP/2 connections whose clients open every window and read nothing.

use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use axum::extract::Path;

use super::*;

/// The pieces in which the handlers make their responses.
const CHUNK: usize = 16 << 10;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_OF_STREAM_AND_HEADERS: u8 = 5;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET` of a path, with field names and values of the static table (RFC 7541, appendix A).
fn get_request(stream: u32, path: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let block = [&[0x82, 0x86, 0x04], &text(path)[..], &[0x01], &text("x")].concat();
    frame(HEADERS, END_OF_STREAM_AND_HEADERS, stream, &block)
}

/// A connection with every window at its maximum.
async fn connect(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let initial_window = [&[0, 4], &0x7fff_ffffu32.to_be_bytes()[..]].concat();
    let grow = frame(WINDOW_UPDATE, 0, 0, &(0x7fff_ffffu32 - 65_535).to_be_bytes());
    let start = [PREFACE, &frame(SETTINGS, 0, 0, &initial_window), &grow].concat();
    stream.write_all(&start).await.unwrap();
    stream
}

/// Serves endless responses, and counts their bytes.
async fn endless(connections: usize) -> (SocketAddr, Arc<AtomicUsize>, watch::Sender<bool>) {
    let made = Arc::new(AtomicUsize::new(0));
    let counter = made.clone();
    let big = async move |Path(length): Path<usize>| {
        Body::from_stream(futures_util::stream::repeat_with(move || {
            counter.fetch_add(length, Relaxed);
            io::Result::Ok(Bytes::from(vec![0; length]))
        }))
    };
    let app = Router::new().route("/big/{length}", get(big)).route("/", get(async || "served"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (start_drain, draining) = watch::channel(false);
    let limits = PortLimits {
        per_client: connections,
        streams: connections,
        streams_per_client: connections,
        ..PortLimits::new(connections)
    };
    tokio::spawn(serve(limits, listener, app, Drain::new(draining, Duration::from_secs(10)), None));
    (addr, made, start_drain)
}

/// Waits until no more is made, and returns how much was.
async fn settled(made: &AtomicUsize) -> usize {
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = made.load(Relaxed);
        if now > 0 && now == before {
            return now;
        }
        before = now;
    }
}

#[tokio::test]
async fn what_is_buffered_for_a_client_that_reads_nothing_is_bounded() {
    // What the kernel buffers of one connection: 4 MiB here, 6 MiB there, as Linux allows by default.
    const SOCKET: usize = 10 << 20;
    for length in [CHUNK, 1000] {
        let (addr, made, _drain) = endless(512).await;
        let mut clients = Vec::new();
        for _ in 0..4 {
            let mut client = connect(addr).await;
            for n in 0..120 {
                client.write_all(&get_request(2 * n + 1, &format!("/big/{length}"))).await.unwrap();
            }
            clients.push(client);
        }
        let streams = 4 * limits::MAX_STREAMS as usize;
        let per_stream = 2 * limits::STREAM_SEND_BUFFER + length;
        let made = in_time("the end", settled(&made)).await;
        assert!(
            made <= streams * per_stream + clients.len() * SOCKET,
            "{made} bytes for clients that don't read"
        );
    }
}

#[tokio::test]
async fn requests_in_flight_on_all_connections_are_bounded() {
    let (addr, made, _drain) = endless(80).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = connect(addr).await;
        for n in 0..limits::MAX_STREAMS {
            client.write_all(&get_request(2 * n + 1, "/big/100")).await.unwrap();
        }
        clients.push(client);
    }
    in_time("the end", settled(&made)).await;
    // A new request is refused, and served once others are over.
    assert!(response(addr).await.contains("too many HTTP/2 requests"));
    for n in 0..limits::MAX_STREAMS {
        let cancel = frame(RST_STREAM, 0, 2 * n + 1, &8u32.to_be_bytes());
        clients[0].write_all(&cancel).await.unwrap();
    }
    in_time("a success", async { while !response(addr).await.contains("served") {} }).await;
    assert_eq!(
        reqwest::get(format!("http://{addr}/")).await.unwrap().status(),
        200,
        "HTTP/1 is not affected"
    );
}

/// The frames that answer `GET /` on a new connection, as text.
async fn response(addr: SocketAddr) -> String {
    let mut client = connect(addr).await;
    client.write_all(&get_request(1, "/")).await.unwrap();
    let mut text = Vec::new();
    while !["served", "retry later"].iter().any(|end| String::from_utf8_lossy(&text).contains(end)) {
        assert_ne!(in_time("a response", client.read_buf(&mut text)).await.unwrap(), 0);
    }
    String::from_utf8_lossy(&text).into_owned()
}
