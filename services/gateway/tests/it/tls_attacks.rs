//! The port for TLS under attack: each row is refused or ends, and good clients are served meanwhile.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::rustls::version::TLS13;

use super::support::{DEADLINE, eventually, problem, status};
use super::tls_support::{BOTH, Client, GET, TlsGateway};

/// A TLS record: 22 is a handshake, 21 an alert.
fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind, 3, 1][..], &length, body].concat()
}

fn with_length<const N: usize>(body: &[u8]) -> Vec<u8> {
    let length = body.len().to_be_bytes();
    [&length[8 - N..], body].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &with_length::<2>(body)].concat()
}

/// A ClientHello of this version, with these extensions.
fn client_hello(version: u16, extensions: &[Vec<u8>]) -> Vec<u8> {
    let suites = [0xc0, 0x2b, 0xc0, 0x2f, 0x00, 0x2f, 0x13, 0x01]; // of TLS 1.2, 1.0 and 1.3
    let body = [
        &version.to_be_bytes()[..],
        &[7; 32],
        &[0], // no session
        &with_length::<2>(&suites),
        &[1, 0], // no compression
        &with_length::<2>(&extensions.concat()),
    ];
    [&[1][..], &with_length::<3>(&body.concat())].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &with_length::<2>(&[&[0][..], &with_length::<2>(name)].concat()))
}

/// Curves, signatures and point formats, so that a hello lacks nothing that is not named in a row.
fn common() -> Vec<Vec<u8>> {
    vec![
        extension(10, &with_length::<2>(&[0, 23, 0, 29])),
        extension(13, &with_length::<2>(&[4, 3, 8, 4, 4, 1])),
        extension(11, &with_length::<1>(&[0])),
    ]
}

/// Sends bytes to the port for TLS. Returns what comes back until the connection ends, however it does.
async fn answer(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut received = Vec::new();
    let exchange = async {
        // It may be refused before it has been sent.
        let _ = stream.write_all(bytes).await;
        let _ = stream.read_to_end(&mut received).await; // a reset is an end, too
    };
    tokio::time::timeout(DEADLINE, exchange).await.expect("the connection ends");
    received
}

/// The description of the first fatal alert.
fn alert(received: &[u8]) -> Option<u8> {
    match received {
        [21, 3, _, 0, 2, 2, description, ..] => Some(*description),
        _ => None,
    }
}

const PROTOCOL_VERSION: u8 = 70;
const NO_APPLICATION_PROTOCOL: u8 = 120;

#[tokio::test(flavor = "multi_thread")]
async fn hellos_that_can_not_be_accepted_are_refused_with_an_alert() {
    let it = TlsGateway::start(&["a.example"]).await;
    let tls = it.gateway.tls.unwrap();
    for version in [0x0300, 0x0301, 0x0302] {
        let refused = answer(tls, &record(22, &client_hello(version, &common()))).await;
        assert_eq!(alert(&refused), Some(PROTOCOL_VERSION), "{version:x}: {refused:?}");
    }
    let spdy = extension(16, &with_length::<2>(&with_length::<1>(b"spdy/3")));
    let hello = client_hello(0x0303, &[common(), vec![spdy]].concat());
    assert_eq!(alert(&answer(tls, &record(22, &hello)).await), Some(NO_APPLICATION_PROTOCOL));
    for (what, hello) in [
        ("no common suite", {
            let mut hello = client_hello(0x0303, &common());
            hello[41..49].copy_from_slice(&[0, 0x2f, 0, 0x35, 0, 4, 0, 5]); // RSA key exchange, RC4
            hello
        }),
        ("a name that is none", client_hello(0x0303, &[common(), vec![server_name(b"a..b\0")]].concat())),
        ("two names", client_hello(0x0303, &[common(), vec![server_name(b"a"), server_name(b"b")]].concat())),
        ("an extension twice", client_hello(0x0303, &[common(), common()].concat())),
        ("no extensions", client_hello(0x0303, &[])),
        ("cut off within", client_hello(0x0303, &common())[..60].to_vec()),
        ("not a hello", vec![20, 0, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    ] {
        let mut bytes = record(22, &hello);
        bytes.extend(record(21, &[1, 0])); // close_notify: nothing more comes
        let refused = answer(tls, &bytes).await;
        assert!(refused.is_empty() || alert(&refused).is_some(), "{what}: {refused:?}");
    }
    assert!(Client::connect(&it.gateway, &it.authority.client(&BOTH, &[]), "a.example").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_of_any_claimed_size_takes_up_no_more_than_a_handshake_may() {
    let it = TlsGateway::start(&["a.example"]).await;
    let tls = it.gateway.tls.unwrap();
    // It claims 16 MiB, and sends records for as long as anybody reads them.
    let mut stream = TcpStream::connect(tls).await.unwrap();
    stream.write_all(&record(22, &[&[1, 0xff, 0xff, 0xff][..], &[0; 16_000]].concat())).await.unwrap();
    let flood = async {
        let more = record(22, &[0; 16_384]);
        let mut sent = 0;
        while stream.write_all(&more).await.is_ok() {
            sent += more.len();
        }
        sent
    };
    let sent = tokio::time::timeout(DEADLINE, flood).await.expect("it ends");
    assert!(sent < 32 << 20, "{sent}"); // the kernels' buffers
    // Padding up to the longest hello that there may be is only padding.
    let padded = client_hello(0x0303, &[common(), vec![extension(21, &[0; 15_000])]].concat());
    assert_eq!(answer(tls, &[record(22, &padded), record(21, &[2, 0])].concat()).await.first(), Some(&22));
    assert!(Client::connect(&it.gateway, &it.authority.client(&BOTH, &[]), "a.example").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host_gets_the_default_certificate_and_no_name_breaks_anything() {
    let it = TlsGateway::start(&["a.example", "b.example"]).await;
    for name in [&b"unknown.example"[..], b"A.EXAMPLE", b"b.example.", &[b'x'; 63], b"127.0.0.1"] {
        let hello = client_hello(0x0303, &[common(), vec![server_name(name)]].concat());
        let received =
            answer(it.gateway.tls.unwrap(), &[record(22, &hello), record(21, &[2, 0])].concat()).await;
        // A name that is none (RFC 6066, 3) may be refused; any other is answered with a ServerHello and a certificate.
        assert!(received.first() == Some(&22) || alert(&received).is_some(), "{received:?}");
    }
    let mut client =
        Client::connect(&it.gateway, &it.authority.client(&[&TLS13], &[]), "b.example").await.unwrap();
    let other = client.send("GET /shop HTTP/1.1\r\nHost: unknown.example\r\n\r\n").await;
    assert_eq!(status(&other), 200, "a host that the gateway does not know changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn clear_text_and_garbage_end_on_the_port_for_tls_and_tls_on_the_clear_one() {
    let it = TlsGateway::start(&["a.example"]).await;
    let tls = it.gateway.tls.unwrap();
    for request in [GET, "POST / HTTP/1.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let refused = String::from_utf8(answer(tls, request.as_bytes()).await).unwrap();
        assert_eq!(
            (status(&refused), &problem(&refused)["cause"]),
            (400, &"bad-framing".into()),
            "{refused}"
        );
        assert!(refused.contains("this port speaks TLS"), "{refused}");
    }
    for garbage in
        [&[0_u8; 500][..], &[0xff; 500], b"\x16\x03\x01\xff\xff garbage", b"\x80\x2e\x01\x00\x02", b"\x16"]
    {
        let received = answer(tls, garbage).await;
        assert!(!received.starts_with(b"HTTP"), "{received:?}");
    }
    let hello = record(22, &client_hello(0x0303, &common()));
    let refused = String::from_utf8(answer(it.gateway.addr, &hello).await).unwrap();
    assert_eq!(status(&refused), 400, "{refused}");
    assert!(refused.contains("this port speaks HTTP without TLS"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_may_be_as_slow_as_a_head_and_no_slower() {
    let it = TlsGateway::start(&["a.example"]).await;
    let hello = record(22, &client_hello(0x0303, &common()));
    let began = std::time::Instant::now();
    let mut stream = TcpStream::connect(it.gateway.tls.unwrap()).await.unwrap();
    let drip = async {
        for byte in hello.iter().cycle() {
            stream.write_all(&[*byte]).await?;
            tokio::time::sleep(Duration::from_millis(20)).await; // what a slow client does
        }
        Ok::<_, io::Error>(())
    };
    tokio::time::timeout(DEADLINE, drip).await.expect("it is cut off").unwrap_err();
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
}

async fn connect_from(addr: &str, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{addr}:0").parse().unwrap())?;
    socket.connect(to).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_half_open_handshakes_keep_nobody_out_and_end() {
    const ALL: usize = 2000;
    let it = TlsGateway::start_with(&["a.example"], |config, _| {
        config.tls.connections = ALL;
        config.timeouts.request_header = Duration::from_secs(10);
    });
    let it = it.await;
    let tls = it.gateway.tls.unwrap();
    let mut held = Vec::new();
    for n in 0..ALL {
        let mut stream = connect_from("127.0.0.2", tls).await.unwrap();
        // Half say nothing at all; a connection beyond the attacker's share is closed at once.
        if n % 2 == 0 {
            let _ = stream.write_all(&[22, 3, 1, 2, 0, 1]).await;
        }
        held.push(stream);
    }
    // One address gets half of them, so others are served while they last.
    eventually("the rest is closed", async || {
        it.gateway.metric("connections", &[]).await <= ALL as u64 / 2 + 8
    })
    .await;
    for version in BOTH {
        let mut client = it.connect(&it.authority.client(&[version], &[]), "a.example").await;
        assert!(client.send(GET).await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(it.gateway.get("/shop").await.status(), 200, "and so is the clear port");
    for stream in &mut held {
        let end = tokio::time::timeout(DEADLINE, stream.read(&mut [0; 64])).await.expect("it ends");
        assert!(end.is_err() || end.unwrap() < 64);
    }
    eventually("nothing is left of them", async || it.gateway.metric("connections", &[]).await <= 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_with_tls_make_room_for_new_ones() {
    let it = TlsGateway::start_with(&["a.example"], |config, _| {
        config.tls.connections = 16;
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]; // may have all of them
    });
    let it = it.await;
    let connector = it.authority.client(&[&TLS13], &[]);
    let mut idle = Vec::new();
    for _ in 0..16 {
        let mut client = it.connect(&connector, "a.example").await;
        assert!(client.send(GET).await.starts_with("HTTP/1.1 200"));
        idle.push(client);
    }
    eventually("a new client is served", async || {
        let Ok(mut client) = Client::connect(&it.gateway, &connector, "a.example").await else {
            return false;
        };
        let sent = client.stream.write_all(GET.as_bytes()).await;
        let mut byte = [0];
        sent.is_ok() && client.stream.read(&mut byte).await.is_ok_and(|count| count == 1)
    })
    .await;
}
