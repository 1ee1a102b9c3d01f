//! Redirects to https, HSTS, and certificates of clients.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hubspoke_gateway::config::ClientAuth;
use tokio::io::AsyncReadExt;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::rustls::version::TLS13;

use super::support::{DEADLINE, eventually, header, problem, status};
use super::tls_support::{Authority, BOTH, Client, GET, TlsGateway};

fn request(method: &str, target: &str, host: &str, more: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clear_port_redirects_to_https_and_keeps_path_and_query() {
    let it = TlsGateway::start_with(&["a.example", "*.b.example", "127.0.0.1"], |config, _| {
        config.tls.redirect = true;
        config.trusted_proxies = vec!["127.0.0.9/32".parse().unwrap()];
    });
    let it = it.await;
    let port = it.gateway.tls.unwrap().port();
    for (method, target, host, location) in [
        ("GET", "/shop", "a.example", format!("https://a.example:{port}/shop")),
        ("POST", "/x?a=b&c=%20", "A.Example.:8080", format!("https://a.example:{port}/x?a=b&c=%20")),
        ("HEAD", "/", "x.b.example", format!("https://x.b.example:{port}/")),
        ("GET", "http://a.example/abs?q", "a.example", format!("https://a.example:{port}/abs?q")),
        ("GET", "/", "127.0.0.1:1", format!("https://127.0.0.1:{port}/")),
    ] {
        let response = it.gateway.connect_and(&request(method, target, host, "")).await;
        assert_eq!((status(&response), header(&response, "location")), (308, Some(location)), "{response}");
        assert_eq!(header(&response, "strict-transport-security"), None);
    }
    // Nobody is sent to a host that no certificate is for.
    for host in ["evil.example", "a.example.evil", "y.x.b.example", "127.0.0.2", "[::1]:80", "b.example"] {
        let response = it.gateway.connect_and(&request("GET", "/shop", host, "")).await;
        assert_eq!((status(&response), header(&response, "location")), (421, None), "{host}");
        assert_eq!(problem(&response)["cause"], "unknown-host");
    }
    let evil = request("GET", "http://evil.example/", "a.example", "");
    assert_eq!(status(&it.gateway.connect_and(&evil).await), 421, "the target's host counts");
    let fake = request(
        "GET",
        "/shop",
        "a.example",
        "X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\n",
    );
    let response = it.gateway.connect_and(&fake).await;
    assert_eq!(header(&response, "location"), Some(format!("https://a.example:{port}/shop")));
    // An ACME server must be answered in clear text: here nobody has the path.
    let acme = request("GET", "/.well-known/acme-challenge/x", "a.example", "");
    assert_eq!(status(&it.gateway.connect_and(&acme).await), 404);
    let mut client = it.connect(&it.authority.client(&[&TLS13], &[]), "a.example").await;
    assert!(client.send(GET).await.starts_with("HTTP/1.1 200"), "no redirect over TLS");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_names_the_public_port_and_a_trusted_proxy_has_done_tls_already() {
    let it = TlsGateway::start_with(&["a.example"], |config, _| {
        config.tls.redirect = true;
        config.tls.public_port = Some(443);
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let it = it.await;
    let response = it.gateway.connect_and(GET).await;
    assert_eq!(header(&response, "location").as_deref(), Some("https://a.example/shop"));
    let behind = request("GET", "/shop", "evil.example", "X-Forwarded-Proto: https\r\n");
    assert_eq!(status(&it.gateway.connect_and(&behind).await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_transport_security_is_sent_over_tls_alone() {
    let it = TlsGateway::start_with(&["a.example"], |config, _| {
        config.tls.hsts = Some(Duration::from_secs(86_400));
    });
    let it = it.await;
    for (target, expected) in [("/shop", 200), ("/nobody", 404), ("/shop/../x", 400)] {
        let connector = it.authority.client(&[&TLS13], &[]);
        let mut client = it.connect(&connector, "a.example").await;
        let response = client.send(&request("GET", target, "a.example", "")).await;
        let policy = header(&response, "strict-transport-security");
        assert_eq!((status(&response), policy.as_deref()), (expected, Some("max-age=86400")), "{response}");
        let clear = it.gateway.connect_and(&request("GET", target, "a.example", "")).await;
        assert_eq!((status(&clear), header(&clear, "strict-transport-security")), (expected, None));
    }
    let mut client = it.connect(&it.authority.client(&[&TLS13], &[]), "a.example").await;
    let refused = client.send("GET /shop HTTP/1.1\r\nHost : a.example\r\n\r\n").await; // before it is parsed
    let policy = header(&refused, "strict-transport-security");
    assert_eq!((status(&refused), policy.as_deref()), (400, Some("max-age=86400")));
}

/// A gateway that asks clients for certificates of its own authority.
async fn asking(auth: ClientAuth) -> TlsGateway {
    TlsGateway::start_with(&["a.example"], |config, authority| {
        let file = config.tls.certs[0].join("ca.crt");
        std::fs::write(&file, authority.0.pem()).unwrap();
        config.tls.client_ca = Some(file);
        config.tls.client_auth = auth;
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]; // even they can't set the field
    })
    .await
}

/// The fields of a request as the instance got them.
async fn seen(client: &mut Client, more: &str) -> String {
    client.send(&request("GET", "/shop/headers", "a.example", more)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_learns_the_clients_certificate_and_nobody_can_forge_it() {
    let it = asking(ClientAuth::Optional).await;
    let forged = "Client-Cert: :Zm9yZ2Vk:\r\nClient-Cert-Chain: :Zm9yZ2Vk:\r\nClient_Cert: x\r\n";
    for version in BOTH {
        let (cert, key) = it.authority.identity(vec!["alice".to_owned()]);
        let expected = format!("\"client-cert\": \":{}:\"", STANDARD.encode(&cert));
        let connector = it.authority.client_as(&[version], &[], Some((cert, key)));
        for _ in 0..2 {
            let mut client = it.connect(&connector, "a.example").await;
            for more in ["", forged, "Connection: client-cert\r\n"] {
                let response = seen(&mut client, more).await;
                assert!(response.contains(&expected) && !response.contains("Zm9yZ2Vk"), "{response}");
                assert!(!response.contains("client_cert"), "{response}");
            }
            // A resumed session would skip the check.
            assert_eq!(client.stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        }
        // Without a certificate, and on the clear port.
        let mut client = it.connect(&it.authority.client(&[version], &[]), "a.example").await;
        let mut clear = it.gateway.connect().await;
        clear.write(request("GET", "/shop/headers", "a.example", forged)).await;
        for response in [seen(&mut client, forged).await, clear.response().await] {
            assert_eq!(status(&response), 200);
            assert!(!response.contains("client-cert") && !response.contains("Zm9yZ2Vk"), "{response}");
        }
    }
}

/// Whether a client gets an answer; with TLS 1.3 it learns after the handshake that it was refused.
async fn is_served(it: &TlsGateway, connector: &tokio_rustls::TlsConnector) -> bool {
    let Ok(mut client) = Client::connect(&it.gateway, connector, "a.example").await else { return false };
    let sent = tokio::io::AsyncWriteExt::write_all(&mut client.stream, GET.as_bytes()).await;
    let mut byte = [0];
    let read = tokio::time::timeout(DEADLINE, client.stream.read(&mut byte)).await.expect("an end");
    sent.is_ok() && read.is_ok_and(|count| count == 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_valid_certificate_is_refused() {
    let (it, foreign) = (asking(ClientAuth::Required).await, Authority::new());
    for version in BOTH {
        let with = |identity| it.authority.client_as(&[version], &[], Some(identity));
        assert!(is_served(&it, &with(it.authority.identity(vec!["alice".to_owned()]))).await);
        assert!(!is_served(&it, &it.authority.client(&[version], &[])).await, "none");
        assert!(!is_served(&it, &with(foreign.identity(vec!["alice".to_owned()]))).await, "of another CA");
        // Its field would be too long for many servers.
        let long: Vec<String> = (0..200).map(|n| format!("name-{n}.long.example.of.many.names")).collect();
        assert!(!is_served(&it, &with(it.authority.identity(long))).await, "too long");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_of_clients_is_read_again_and_a_bad_one_is_not_used() {
    let (it, next) = (asking(ClientAuth::Required).await, Authority::new());
    let alice = it.authority.client_as(&[&TLS13], &[], Some(it.authority.identity(vec!["alice".to_owned()])));
    let bob = it.authority.client_as(&[&TLS13], &[], Some(next.identity(vec!["bob".to_owned()])));
    assert!(is_served(&it, &alice).await && !is_served(&it, &bob).await);
    let file = it.folder.path().join("a.example/ca.crt");
    std::fs::write(&file, it.authority.0.pem() + &next.0.pem()).unwrap(); // both, as during a change
    eventually("the second CA counts", async || is_served(&it, &bob).await).await;
    assert!(is_served(&it, &alice).await);
    std::fs::write(&file, "").unwrap();
    eventually("the empty bundle is reported", async || {
        let metrics = it.gateway.get_control("/metrics").await.1;
        metrics.lines().any(|line| line.starts_with("hub_tls_reload_failures_total") && !line.ends_with(" 0"))
    })
    .await;
    assert!(is_served(&it, &alice).await && is_served(&it, &bob).await);
    std::fs::write(&file, next.0.pem()).unwrap();
    eventually("the first CA counts no more", async || !is_served(&it, &alice).await).await;
    assert!(is_served(&it, &bob).await);
}
