//! Timeouts and limits.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::support::*;

const SOON: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let gateway = Gateway::start(|config| config.timeouts.request_header = SOON).await;
    assert_eq!(gateway.connect().await.read_to_end().await, "");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::start(|config| config.timeouts.keep_alive = SOON).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    let mut raw = gateway.connect().await;
    raw.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await;
    raw.response().await;
    assert_eq!(raw.read_to_end().await, "");
}

#[tokio::test]
async fn silence_within_a_request_body_is_a_408() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::start(|config| config.timeouts.idle = SOON).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    let mut raw = gateway.connect().await;
    raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx").await;
    let response = raw.response().await;
    assert_eq!(status(&response), 408, "{response}");
    assert_eq!(problem(&response)["cause"], "request-timeout");
    assert_eq!(gateway.metric("instance_failures", &["svc"]).await, 0);
}

#[tokio::test]
async fn silence_breaks_off_a_response_but_not_a_live_stream() {
    for (kind, cut) in [("text/plain", true), ("text/event-stream", false), ("application/grpc+proto", false)]
    {
        let instance = FakeInstance::script(move |mut raw, _| async move {
            raw.request().await;
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
            raw.write(head + "5\r\nfirst\r\n").await;
            tokio::time::sleep(SOON * 4).await;
            raw.write("4\r\nlast\r\n0\r\n\r\n").await;
            raw.read_to_end().await;
        })
        .await;
        let gateway = Gateway::start(|config| config.timeouts.idle = SOON).await;
        gateway.set("svc", &[instance.info("svc")]).await;
        assert_eq!(gateway.get("/svc").await.bytes().await.is_err(), cut, "{kind}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected() {
    let instance = FakeInstance::script(|mut raw, seen| async move {
        raw.request().await;
        raw.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 1_u64 << 40)).await;
        let part = vec![b'x'; 1 << 20];
        while tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &part).await.is_ok() {}
        seen.lock().unwrap().push("cut off".to_owned());
    })
    .await;
    let gateway = Gateway::start(|config| config.timeouts.idle = SOON).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    let mut raw = gateway.connect().await;
    raw.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the instance's connection is closed", async || !instance.requests().is_empty()).await;
}

#[tokio::test]
async fn a_connect_timeout_is_a_504() {
    // A listener whose queue is full neither accepts nor refuses connections.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    let mut fill = Vec::new();
    for _ in 0..4 {
        let filler = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        filler.set_nonblocking(true).unwrap();
        let _ = filler.connect(&addr.into());
        fill.push(filler);
    }
    let gateway = Gateway::start(|config| config.timeouts.connect = SOON).await;
    gateway.set("svc", &[hubspoke_protocol::ServiceInfo::new("svc", addr.to_string())]).await;
    let response = gateway.get("/svc").await;
    assert_eq!(response.status(), 504);
    assert_eq!(response.json::<serde_json::Value>().await.unwrap()["cause"], "connect-timeout");
}

#[tokio::test]
async fn all_attempts_share_one_deadline() {
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(FakeInstance::script(|mut raw, _| async move { drop(raw.read_to_end().await) }).await);
    }
    let gateway = Gateway::start(|config| {
        config.timeouts.first_byte = Duration::from_millis(400);
        config.timeouts.total = Duration::from_millis(600);
    })
    .await;
    gateway.set("svc", &instances.iter().map(|i| i.info("svc")).collect::<Vec<_>>()).await;
    let response = gateway.get("/svc").await;
    assert_eq!(response.status(), 504);
    let problem: serde_json::Value = response.json().await.unwrap();
    // The second attempt gets what the first has left; nothing remains for a third.
    assert_eq!((&problem["cause"], &problem["attempts"]), (&"reply-timeout".into(), &2.into()));
}

#[tokio::test]
async fn idle_connections_to_instances_are_closed() {
    let instance = FakeInstance::script(|mut raw, seen| async move {
        while let Some(request) = raw.request().await {
            seen.lock().unwrap().push(request);
            raw.write(HELLO).await;
        }
        seen.lock().unwrap().push("closed".to_owned());
    })
    .await;
    let gateway = Gateway::start(|config| config.timeouts.pool_idle = SOON).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    assert_eq!(gateway.get("/svc").await.status(), 200);
    eventually("the connection is closed", async || {
        instance.requests().last().is_some_and(|last| last == "closed")
    })
    .await;
    assert_eq!(gateway.metric("pooled", &["svc"]).await, 0);
    assert_eq!(gateway.get("/svc").await.status(), 200);
    assert_eq!(gateway.metric("connections_opened", &["svc"]).await, 2);
}

#[tokio::test]
async fn the_requests_in_flight_to_a_service_are_limited() {
    let instance = FakeInstance::script(|mut raw, seen| async move {
        let request = raw.request().await;
        seen.lock().unwrap().extend(request);
        raw.read_to_end().await;
    })
    .await;
    let other = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::start(|config| {
        config.services.entry("svc".to_owned()).or_default().in_flight = Some(2);
        config.limits.client_in_flight_percent = 100;
    })
    .await;
    gateway.set("svc", &[instance.info("svc")]).await;
    gateway.set("other", &[other.info("other")]).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut raw = gateway.connect().await;
        raw.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await;
        held.push(raw);
    }
    eventually("two are in flight", async || instance.requests().len() == 2).await;
    let response = gateway.get("/svc").await;
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    assert_eq!(response.json::<serde_json::Value>().await.unwrap()["cause"], "overloaded");
    assert_eq!(gateway.get("/other").await.status(), 200);
    assert_eq!(gateway.metric("failures", &["svc", "overloaded"]).await, 1);
    assert_eq!(gateway.metric("refusals", &["overloaded"]).await, 0); // counted once
    drop(held); // a client that disconnects frees its slot
    eventually("a slot is free again", async || gateway.metric("in_flight", &["svc"]).await == 0).await;
}

#[tokio::test]
async fn connections_over_the_limit_get_a_503() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::start(|config| config.limits.connections = 3).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    let get = "GET /svc HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut raw = gateway.connect().await;
        raw.write(get).await;
        assert!(raw.response().await.ends_with("hello"));
        held.push(raw);
    }
    let response = gateway.raw(get).await;
    assert_eq!(status(&response), 503);
    assert_eq!(problem(&response)["cause"], "too-many-connections");
    held.pop();
    eventually("a slot is free again", async || status(&gateway.connect_and(get).await) == 200).await;
}

#[tokio::test]
async fn idle_connections_make_room_for_new_ones_and_busy_ones_do_not() {
    let (instance, busy) = (FakeInstance::responding(HELLO).await, silent().await);
    let gateway = Gateway::start(|config| (config.limits.connections, config.workers) = (32, 1)).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    gateway.set("slow", &[busy.info("slow")]).await;
    let mut waiting = gateway.connect().await;
    waiting.write("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut held = Vec::new();
    // All but the few places that are kept free; the first is idle for longest.
    for _ in 0..27 {
        let mut raw = gateway.connect().await;
        raw.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(raw.response().await.ends_with("hello"));
        held.push(raw);
    }
    let mut late = Vec::new();
    eventually("the one that was idle for longest is closed", async || {
        late.push(gateway.connect().await);
        late.truncate(3);
        let closed = tokio::time::timeout(Duration::from_millis(100), held[0].read_to_end()).await;
        closed.is_ok()
    })
    .await;
    // More than there is room for, if the others stayed.
    for _ in 0..10 {
        eventually("a new connection is served", async || {
            let mut raw = gateway.connect().await;
            drop(raw.stream.write_all(b"GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await);
            let is_served = status(&raw.response().await) == 200;
            late.push(raw);
            is_served
        })
        .await;
    }
    let end = tokio::time::timeout(Duration::from_millis(10), waiting.read_to_end()).await;
    assert!(end.is_err(), "a connection with a request in flight was closed");
}

#[tokio::test]
async fn a_burst_of_connections_does_not_exceed_the_limit() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::start(|config| config.limits.connections = 10).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    for _ in 0..5 {
        let mut all = Vec::new();
        for _ in 0..40 {
            all.push(gateway.connect().await);
        }
        let mut served = 0;
        for raw in &mut all {
            // A connection over the limit has its 503 already, and may be closed.
            drop(raw.stream.write_all(b"GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await);
            served += u32::from(status(&raw.response().await) == 200);
        }
        assert_eq!(served, 10);
        drop(all);
        eventually("all are closed", async || gateway.metric("connections", &[]).await == 0).await;
    }
}

#[tokio::test]
async fn the_connections_of_an_address_are_limited() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::start(|config| config.limits.client_connections = 2).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    let get = "GET /svc HTTP/1.1\r\nHost: a\r\n\r\n";
    let from = async |addr: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(addr.parse().unwrap()).unwrap();
        let mut raw = RawConn { stream: socket.connect(gateway.addr).await.unwrap() };
        raw.write(get).await;
        (raw.response().await, raw)
    };
    let mut held = Vec::new();
    for _ in 0..2 {
        let (response, raw) = from("127.0.0.2:0").await;
        assert_eq!(status(&response), 200);
        held.push(raw);
    }
    let (response, _) = from("127.0.0.2:0").await;
    assert_eq!((status(&response), &problem(&response)["cause"]), (503, &"too-many-connections".into()));
    assert_eq!(status(&from("127.0.0.3:0").await.0), 200);
    held.pop();
    eventually("a slot is free again", async || status(&from("127.0.0.2:0").await.0) == 200).await;
}

#[tokio::test]
async fn the_request_rate_of_a_client_is_limited() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::start(|config| {
        config.limits.client_rate = 1;
        config.limits.client_burst = 3;
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    gateway.set("svc", &[instance.info("svc")]).await;
    let from = async |client: &str| {
        let response = gateway.request("GET", "/svc").header("x-forwarded-for", client).send().await.unwrap();
        assert_eq!(response.headers().contains_key("retry-after"), response.status() == 429);
        response.status().as_u16()
    };
    for expected in [200, 200, 200, 429] {
        assert_eq!(from("10.0.0.1").await, expected);
    }
    // Behind a trusted proxy the address that the proxy reports counts, not what the client claims.
    assert_eq!(from("10.0.0.2").await, 200);
    assert_eq!(from("10.9.9.9, 10.0.0.1").await, 429);
    let seen = instance.requests();
    assert_eq!(header(&seen[0], "x-forwarded-for").as_deref(), Some("10.0.0.1, 127.0.0.1"));
}

#[tokio::test]
async fn requests_with_the_same_key_go_to_the_same_instance() {
    let mut instances = Vec::new();
    for _ in 0..4 {
        instances.push(FakeInstance::responding(HELLO).await);
    }
    let gateway = Gateway::start(|config| {
        let sticky = Some(hubspoke_gateway::config::Sticky::Cookie("sid".to_owned()));
        config.services.entry("svc".to_owned()).or_default().sticky = sticky;
    })
    .await;
    gateway.set("svc", &instances.iter().map(|i| i.info("svc")).collect::<Vec<_>>()).await;
    let served = async |cookie: &str| {
        let response = gateway.request("GET", "/svc").header("cookie", cookie).send().await.unwrap();
        response.headers()["hub-instance"].to_str().unwrap().to_owned()
    };
    let mut all = std::collections::BTreeSet::new();
    for user in 0..200 {
        let first = served(&format!("a=b; sid={user}")).await;
        assert_eq!(served(&format!("sid={user}; c=d")).await, first);
        all.insert(first);
    }
    assert_eq!(all.len(), 4);
}

#[tokio::test]
async fn an_encoded_slash_is_passed_on_if_the_service_allows_it() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::start(|config| {
        let encoded_slash = hubspoke_gateway::config::EncodedSlash::Pass;
        config.services.entry("store".to_owned()).or_default().encoded_slash = encoded_slash;
    })
    .await;
    gateway.set("store", &[instance.info("store")]).await;
    assert_eq!(gateway.get("/store/a%2Fb").await.status(), 200);
    assert!(instance.requests()[0].starts_with("GET /store/a%2Fb "));
    assert_eq!(gateway.get("/store/a%2F..%2Fb").await.status(), 400);
}
