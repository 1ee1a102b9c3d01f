//! TLS towards clients.

use tokio::io::AsyncReadExt;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use super::support::eventually;
use super::tls_support::{Client, GET, TlsGateway};

#[tokio::test(flavor = "multi_thread")]
async fn requests_come_over_tls_1_2_and_1_3_with_the_certificate_of_their_name() {
    let it = TlsGateway::start(&["a.example", "b.example"]).await;
    for version in [&TLS12, &TLS13] {
        let connector = it.authority.client(&[version], &[b"http/1.1"]);
        for name in ["a.example", "b.example"] {
            let mut client = it.connect(&connector, name).await; // checks the name
            assert_eq!(client.stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            for _ in 0..3 {
                let response = client.send(GET).await;
                assert!(
                    response.starts_with("HTTP/1.1 200") && response.ends_with("\r\n\r\nhttps"),
                    "{response}"
                );
            }
        }
        // The default certificate is the first one's.
        assert!(Client::connect(&it.gateway, &connector, "unknown.example").await.is_err());
    }
    assert_eq!(it.gateway.get("/shop").await.text().await.unwrap(), "http", "the clear port is beside it");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_any_size_pass_and_the_end_is_announced() {
    let it = TlsGateway::start(&["a.example"]).await;
    let connector = it.authority.client(&[&TLS13], &[]);
    let mut client = it.connect(&connector, "a.example").await;
    for size in [0, 1, 16_384, 100_000, 1_900_000] {
        let body = "x".repeat(size);
        let head = format!("POST /shop/echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: {size}\r\n\r\n");
        let response = client.send(&(head + &body)).await;
        assert!(response.ends_with(&format!("\r\n\r\n{body}")), "{size}");
    }
    let last = "GET /shop HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    client.send(last).await;
    // Without a close_notify this is an error.
    assert_eq!(client.stream.read(&mut [0; 10]).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_and_a_short_body_are_one_record() {
    let it = TlsGateway::start(&["a.example"]).await;
    let mut client = it.connect(&it.authority.client(&[&TLS13], &[]), "a.example").await;
    client.send(GET).await; // and the session tickets
    client.received.lock().unwrap().clear();
    client.send(GET).await;
    let received = client.received.lock().unwrap().clone();
    let length = usize::from(u16::from_be_bytes([received[3], received[4]]));
    assert_eq!((received[0], received.len()), (23, 5 + length), "one record of application data");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_chosen_by_alpn() {
    let it = TlsGateway::start(&["a.example"]).await;
    let connector = it.authority.client(&[&TLS13], &[b"h2", b"http/1.1"]);
    let client = it.connect(&connector, "a.example").await;
    assert_eq!(client.stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut send, connection) = h2::client::handshake(client.stream).await.unwrap();
    tokio::spawn(connection);
    let request = axum::http::Request::get("https://a.example/shop").body(()).unwrap();
    let response = send.send_request(request, true).unwrap().0.await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.into_body().data().await.unwrap().unwrap(), "https");
    // A protocol that the gateway does not speak.
    let connector = it.authority.client(&[&TLS13], &[b"spdy/3"]);
    assert!(Client::connect(&it.gateway, &connector, "a.example").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_while_sessions_resume_and_bad_ones_are_not_used() {
    let it = TlsGateway::start(&["a.example"]).await;
    let connector = it.authority.client(&[&TLS13], &[]);
    let serial = async || {
        let mut client = it.connect(&it.authority.client(&[&TLS13], &[]), "a.example").await;
        client.send(GET).await;
        client.stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = serial().await;
    it.connect(&connector, "a.example").await.send(GET).await;
    it.authority.issue(&it.folder.path().join("a.example"), "a.example");
    eventually("the new certificate is in use", async || serial().await != first).await;
    let mut resumed = it.connect(&connector, "a.example").await;
    resumed.send(GET).await;
    assert_eq!(resumed.stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    let second = serial().await;
    std::fs::write(it.folder.path().join("a.example/tls.crt"), "half").unwrap();
    eventually("the bad one is reported", async || {
        let metrics = it.gateway.get_control("/metrics").await.1;
        let failures = metrics.lines().find(|line| line.starts_with("hub_tls_reload_failures_total"));
        failures.is_some_and(|line| !line.ends_with(" 0"))
    })
    .await;
    assert_eq!(serial().await, second);
    let metrics = it.gateway.get_control("/metrics").await.1;
    let left = metrics.lines().find(|line| line.starts_with("hub_tls_expiry_seconds")).unwrap();
    assert!(left.rsplit(' ').next().unwrap().parse::<f64>().unwrap() > 1e6, "{left}");
}
