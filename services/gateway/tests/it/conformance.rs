//! Conformance: the claims of h2spec over HTTP/2, and WebSocket exchanges in the manner of the Autobahn test suite.

use hubspoke_testkit::{conformance, h2_claims, websocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::*;

#[tokio::test]
async fn http1_is_spoken_as_rfc_9112_asks() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut failures = Vec::new();
    for case in conformance::HTTP1 {
        failures.extend(case.run(gateway.addr).await.err());
    }
    assert_eq!(failures, Vec::<String>::new());
}

#[tokio::test]
async fn http2_is_spoken_as_rfc_9113_asks() {
    let gateway = Gateway::start(|_| ()).await;
    assert_eq!(h2_claims::failures(gateway.addr).await, Vec::<String>::new());
}

const OPENING: &str = "GET /svc/ws HTTP/1.1\r\nHost: a\r\n";

/// An instance that opens a WebSocket, writes `first` with its 101, echoes all bytes, and writes `LAST` after the
/// client's end.
async fn echoing(first: &'static [u8]) -> FakeInstance {
    FakeInstance::script(move |mut raw, seen| async move {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            raw.stream.read_exact(&mut byte).await.unwrap(); // bytewise: frames may follow at once
            head.push(byte[0]);
        }
        seen.lock().unwrap().push(String::from_utf8(head).unwrap());
        raw.write([websocket::ACCEPTING.as_bytes(), first].concat()).await;
        let (mut read, mut write) = raw.stream.split();
        if tokio::io::copy(&mut read, &mut write).await.is_ok() {
            let _ = write.write_all(LAST).await;
        }
    })
    .await
}

const LAST: &[u8] = b"\x88\x02\x03\xe8";

/// Opens a WebSocket, and writes `frames` without waiting for the 101. Returns the connection after the 101.
async fn open(gateway: &Gateway, frames: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    let opening = format!("{OPENING}{}\r\n", websocket::OPENING);
    stream.write_all(&[opening.as_bytes(), frames].concat()).await.unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).await.unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert_eq!(status(&head), 101, "{head}");
    assert_eq!(header(&head, "upgrade").as_deref(), Some("websocket"));
    assert_eq!(header(&head, "sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    stream
}

#[tokio::test]
async fn websocket_exchanges_pass_byte_for_byte_in_both_directions() {
    let instance = echoing(b"").await;
    let gateway = Gateway::with("svc", &instance).await;
    for masked in [true, false] {
        for (name, frames) in websocket::exchanges(masked) {
            let mut stream = open(&gateway, b"").await;
            let (mut read, mut write) = stream.split();
            // In odd pieces; a half-close at the end.
            let piece = if frames.len() < 1000 { 1 } else { 7919 };
            let writing = async {
                for piece in frames.chunks(piece) {
                    write.write_all(piece).await.unwrap();
                }
                write.shutdown().await.unwrap();
            };
            let mut echoed = Vec::new();
            let reading = async { read.read_to_end(&mut echoed).await.unwrap() };
            tokio::time::timeout(DEADLINE, async { tokio::join!(writing, reading) }).await.expect(&name);
            assert!(
                echoed == [&frames, LAST].concat(),
                "{name}: {} of {} bytes",
                echoed.len(),
                frames.len() + 4
            );
        }
    }
    let seen = &instance.requests()[0];
    for name in ["sec-websocket-key", "sec-websocket-version"] {
        assert!(header(seen, name).is_some(), "{seen}");
    }
    assert_eq!(gateway.metric("instance_failures", &["svc"]).await, 0);
}

#[tokio::test]
async fn websocket_frames_that_come_with_the_heads_are_the_first_of_the_stream() {
    const WELCOME: &[u8] = b"\x81\x07welcome";
    let instance = echoing(WELCOME).await;
    let gateway = Gateway::with("svc", &instance).await;
    let early = websocket::frame(0x82, &[7; 3000], true);
    let mut stream = open(&gateway, &early).await;
    let mut received = vec![0; WELCOME.len() + early.len()];
    stream.read_exact(&mut received).await.unwrap();
    assert!(received == [WELCOME, &early].concat());
    // The instance's end is the client's.
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, LAST);
}

#[tokio::test]
async fn a_websocket_whose_instance_half_closes_still_takes_the_clients_frames() {
    let instance = FakeInstance::script(|mut raw, seen| async move {
        raw.request().await.unwrap();
        raw.write(websocket::ACCEPTING).await;
        raw.write(LAST).await;
        raw.stream.shutdown().await.unwrap();
        let mut frames = Vec::new();
        raw.stream.read_to_end(&mut frames).await.unwrap();
        seen.lock().unwrap().push(format!("{frames:?}"));
    })
    .await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut stream = open(&gateway, b"").await;
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, LAST);
    let answer = websocket::frame(0x88, &[3, 0xe8], true);
    stream.write_all(&answer).await.unwrap();
    drop(stream);
    eventually("the instance has it", async || instance.requests() == [format!("{answer:?}")]).await;
}
