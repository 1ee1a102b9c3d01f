//! Every timeout and every limit.

use std::time::Duration;

use hubspoke_gateway::config::ServiceConfig;
use tokio::io::AsyncWriteExt;

use super::support::*;

const SOON: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_client_that_says_nothing_is_closed() {
    let hub = Hub::start(|config| config.timeouts.request_header = SOON).await;
    assert_eq!(hub.connect().await.rest().await, "");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let instance = Instance::reply(HELLO).await;
    let hub = Hub::start(|config| config.timeouts.keep_alive = SOON).await;
    hub.set("svc", &[instance.info("svc")]).await;
    let mut raw = hub.connect().await;
    raw.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await;
    raw.reply().await;
    assert_eq!(raw.rest().await, "");
}

#[tokio::test]
async fn silence_within_a_request_body_is_the_clients_fault() {
    let instance = Instance::reply(HELLO).await;
    let hub = Hub::start(|config| config.timeouts.idle = SOON).await;
    hub.set("svc", &[instance.info("svc")]).await;
    let mut raw = hub.connect().await;
    raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx").await;
    let reply = raw.reply().await;
    assert_eq!(status(&reply), 408, "{reply}");
    assert_eq!(problem(&reply)["cause"], "request-timeout");
    assert_eq!(hub.metric("instance_failures", &["svc"]).await, 0);
}

#[tokio::test]
async fn silence_within_a_reply_cuts_it_but_not_a_live_stream() {
    for (kind, cut) in [("text/plain", true), ("text/event-stream", false), ("application/grpc+proto", false)]
    {
        let instance = Instance::script(move |mut raw, _| async move {
            raw.request().await;
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
            raw.write(head + "5\r\nfirst\r\n").await;
            tokio::time::sleep(SOON * 4).await;
            raw.write("4\r\nlast\r\n0\r\n\r\n").await;
            raw.rest().await;
        })
        .await;
        let hub = Hub::start(|config| config.timeouts.idle = SOON).await;
        hub.set("svc", &[instance.info("svc")]).await;
        assert_eq!(hub.get("/svc").await.bytes().await.is_err(), cut, "{kind}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let instance = Instance::script(|mut raw, seen| async move {
        raw.request().await;
        raw.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 1_u64 << 40)).await;
        let part = vec![b'x'; 1 << 20];
        while tokio::io::AsyncWriteExt::write_all(&mut raw.0, &part).await.is_ok() {}
        seen.lock().unwrap().push("cut off".to_owned());
    })
    .await;
    let hub = Hub::start(|config| config.timeouts.idle = SOON).await;
    hub.set("svc", &[instance.info("svc")]).await;
    let mut raw = hub.connect().await;
    raw.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until("the instance is told", async || !instance.requests().is_empty()).await;
}

#[tokio::test]
async fn an_instance_that_can_not_be_connected_to_in_time_is_a_504() {
    // A listener whose queue is full takes no more connections, and refuses none.
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
    let hub = Hub::start(|config| config.timeouts.connect = SOON).await;
    hub.set("svc", &[hubspoke_protocol::ServiceInfo::new("svc", addr.to_string())]).await;
    let reply = hub.get("/svc").await;
    assert_eq!(reply.status(), 504);
    assert_eq!(reply.json::<serde_json::Value>().await.unwrap()["cause"], "connect-timeout");
}

#[tokio::test]
async fn all_attempts_together_have_one_deadline() {
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(Instance::script(|mut raw, _| async move { drop(raw.rest().await) }).await);
    }
    let hub = Hub::start(|config| {
        config.timeouts.first_byte = Duration::from_millis(400);
        config.timeouts.total = Duration::from_millis(600);
    })
    .await;
    hub.set("svc", &instances.iter().map(|i| i.info("svc")).collect::<Vec<_>>()).await;
    let reply = hub.get("/svc").await;
    assert_eq!(reply.status(), 504);
    let problem: serde_json::Value = reply.json().await.unwrap();
    // The second attempt has what the first has left of it, and there is nothing for a third.
    assert_eq!((&problem["cause"], &problem["attempts"]), (&"reply-timeout".into(), &2.into()));
}

#[tokio::test]
async fn an_instances_connection_is_not_kept_for_long() {
    let instance = Instance::script(|mut raw, seen| async move {
        while let Some(request) = raw.request().await {
            seen.lock().unwrap().push(request);
            raw.write(HELLO).await;
        }
        seen.lock().unwrap().push("closed".to_owned());
    })
    .await;
    let hub = Hub::start(|config| config.timeouts.pool_idle = SOON).await;
    hub.set("svc", &[instance.info("svc")]).await;
    assert_eq!(hub.get("/svc").await.status(), 200);
    until("it is closed", async || instance.requests().last().is_some_and(|last| last == "closed")).await;
    assert_eq!(hub.metric("pooled", &["svc"]).await, 0);
    assert_eq!(hub.get("/svc").await.status(), 200);
    assert_eq!(hub.metric("connections_opened", &["svc"]).await, 2);
}

#[tokio::test]
async fn a_service_takes_only_so_many_requests_at_once() {
    let instance = Instance::script(|mut raw, seen| async move {
        let request = raw.request().await;
        seen.lock().unwrap().extend(request);
        raw.rest().await;
    })
    .await;
    let other = Instance::reply(HELLO).await;
    let hub = Hub::start(|config| {
        config
            .services
            .insert("svc".to_owned(), ServiceConfig { in_flight: Some(2), ..ServiceConfig::default() });
    })
    .await;
    hub.set("svc", &[instance.info("svc")]).await;
    hub.set("other", &[other.info("other")]).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut raw = hub.connect().await;
        raw.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await;
        held.push(raw);
    }
    until("two are in flight", async || instance.requests().len() == 2).await;
    let reply = hub.get("/svc").await;
    assert_eq!((reply.status().as_u16(), reply.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    assert_eq!(reply.json::<serde_json::Value>().await.unwrap()["cause"], "overloaded");
    assert_eq!(hub.get("/other").await.status(), 200);
    assert_eq!(hub.metric("failures", &["svc", "overloaded"]).await, 1);
    assert_eq!(hub.metric("refusals", &["overloaded"]).await, 0); // counted once
    drop(held); // a client that goes makes room
    until("there is room again", async || hub.metric("in_flight", &["svc"]).await == 0).await;
}

#[tokio::test]
async fn only_so_many_connections_and_the_rest_are_told() {
    let instance = Instance::reply(HELLO).await;
    let hub = Hub::start(|config| config.limits.connections = 3).await;
    hub.set("svc", &[instance.info("svc")]).await;
    let get = "GET /svc HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut raw = hub.connect().await;
        raw.write(get).await;
        assert!(raw.reply().await.ends_with("hello"));
        held.push(raw);
    }
    let reply = hub.raw(get).await;
    assert_eq!(status(&reply), 503);
    assert_eq!(problem(&reply)["cause"], "too-many-connections");
    held.pop();
    until("there is room again", async || status(&hub.connect_and(get).await) == 200).await;
}

#[tokio::test]
async fn a_burst_of_connections_does_not_get_past_their_limit() {
    let instance = Instance::reply(HELLO).await;
    let hub = Hub::start(|config| config.limits.connections = 10).await;
    hub.set("svc", &[instance.info("svc")]).await;
    for _ in 0..5 {
        let mut all = Vec::new();
        for _ in 0..40 {
            all.push(hub.connect().await);
        }
        let mut served = 0;
        for raw in &mut all {
            // Who is one too many has been told already, and may be closed.
            drop(raw.0.write_all(b"GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await);
            served += u32::from(status(&raw.reply().await) == 200);
        }
        assert_eq!(served, 10);
        drop(all);
        until("all are gone", async || hub.metric("connections", &[]).await == 0).await;
    }
}

#[tokio::test]
async fn one_address_has_only_so_many_connections() {
    let instance = Instance::reply(HELLO).await;
    let hub = Hub::start(|config| config.limits.client_connections = 2).await;
    hub.set("svc", &[instance.info("svc")]).await;
    let get = "GET /svc HTTP/1.1\r\nHost: a\r\n\r\n";
    let from = async |addr: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(addr.parse().unwrap()).unwrap();
        let mut raw = Raw(socket.connect(hub.addr).await.unwrap());
        raw.write(get).await;
        (raw.reply().await, raw)
    };
    let mut held = Vec::new();
    for _ in 0..2 {
        let (reply, raw) = from("127.0.0.2:0").await;
        assert_eq!(status(&reply), 200);
        held.push(raw);
    }
    let (reply, _) = from("127.0.0.2:0").await;
    assert_eq!((status(&reply), &problem(&reply)["cause"]), (503, &"too-many-connections".into()));
    assert_eq!(status(&from("127.0.0.3:0").await.0), 200);
    held.pop();
    until("there is room again", async || status(&from("127.0.0.2:0").await.0) == 200).await;
}

#[tokio::test]
async fn a_client_makes_only_so_many_requests() {
    let instance = Instance::reply(HELLO).await;
    let hub = Hub::start(|config| {
        config.limits.client_rate = 1;
        config.limits.client_burst = 3;
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    hub.set("svc", &[instance.info("svc")]).await;
    let from = async |client: &str| {
        let reply = hub.request("GET", "/svc").header("x-forwarded-for", client).send().await.unwrap();
        assert_eq!(reply.headers().contains_key("retry-after"), reply.status() == 429);
        reply.status().as_u16()
    };
    for expected in [200, 200, 200, 429] {
        assert_eq!(from("10.0.0.1").await, expected);
    }
    // Behind a trusted proxy it is the client's own address that counts, and not what the client claims before it.
    assert_eq!(from("10.0.0.2").await, 200);
    assert_eq!(from("10.9.9.9, 10.0.0.1").await, 429);
    let seen = instance.requests();
    assert_eq!(header(&seen[0], "x-forwarded-for").as_deref(), Some("10.0.0.1, 127.0.0.1"));
}

#[tokio::test]
async fn requests_with_one_key_go_to_one_instance() {
    let mut instances = Vec::new();
    for _ in 0..4 {
        instances.push(Instance::reply(HELLO).await);
    }
    let hub = Hub::start(|config| {
        let sticky = Some(hubspoke_gateway::config::Sticky::Cookie("sid".to_owned()));
        config.services.insert("svc".to_owned(), ServiceConfig { sticky, ..ServiceConfig::default() });
    })
    .await;
    hub.set("svc", &instances.iter().map(|i| i.info("svc")).collect::<Vec<_>>()).await;
    let served = async |cookie: &str| {
        let reply = hub.request("GET", "/svc").header("cookie", cookie).send().await.unwrap();
        reply.headers()["hub-instance"].to_str().unwrap().to_owned()
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
async fn an_encoded_slash_passes_where_the_service_takes_it() {
    let instance = Instance::reply(HELLO).await;
    let hub = Hub::start(|config| {
        let encoded_slash = hubspoke_gateway::config::EncodedSlash::Pass;
        config
            .services
            .insert("store".to_owned(), ServiceConfig { encoded_slash, ..ServiceConfig::default() });
    })
    .await;
    hub.set("store", &[instance.info("store")]).await;
    assert_eq!(hub.get("/store/a%2Fb").await.status(), 200);
    assert!(instance.requests()[0].starts_with("GET /store/a%2Fb "));
    assert_eq!(hub.get("/store/a%2F..%2Fb").await.status(), 400);
}
