//! Instances that fail: what the client gets, and that it gets it from another one where that is safe.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use hubspoke_gateway::config::ServiceConfig;
use hubspoke_protocol::ServiceInfo;
use rand::RngExt;
use socket2::SockRef;

use super::support::*;

/// An address that refuses connections, since nobody listens there, and that nobody else gets meanwhile.
struct Refusing(socket2::Socket);

impl Refusing {
    fn bind() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        Self(socket)
    }

    fn info(&self, service: &str) -> ServiceInfo {
        ServiceInfo::new(service, self.0.local_addr().unwrap().as_socket().unwrap().to_string())
    }
}

/// Closes each connection after it has read a request.
async fn closing() -> Instance {
    Instance::script(|mut raw, seen| async move {
        if let Some(request) = raw.request().await {
            seen.lock().unwrap().push(request);
        }
    })
    .await
}

/// Reads and never answers.
async fn silent() -> Instance {
    Instance::script(|mut raw, seen| async move {
        while let Some(request) = raw.request().await {
            seen.lock().unwrap().push(request);
        }
    })
    .await
}

async fn problem_of(reply: reqwest::Response) -> serde_json::Value {
    assert!(reply.headers()["hub-instance"].to_str().unwrap().starts_with("gateway-"));
    let text = reply.text().await.unwrap();
    assert!(!text.contains("127.0.0.1"), "an address: {text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn each_failure_has_its_status_and_cause() {
    let garbage = Instance::reply("not HTTP at all\r\n\r\n").await;
    let cut = Instance::script(|mut raw, _| async move {
        raw.request().await;
        raw.write("HTTP/1.1 200 OK\r\ncontent-le").await;
    })
    .await;
    let (refusing, closing, silent) = (Refusing::bind(), closing().await, silent().await);
    let hub = Hub::start(|config| {
        config.timeouts.first_byte = Duration::from_millis(200);
        config.eject.failures = 0;
    })
    .await;
    for (info, status, cause) in [
        (refusing.info("svc"), 502, "connect-refused"),
        (closing.info("svc"), 502, "connection-broken"),
        (garbage.info("svc"), 502, "bad-reply"),
        (cut.info("svc"), 502, "bad-reply"),
        (silent.info("svc"), 504, "reply-timeout"),
    ] {
        hub.set("svc", &[info]).await;
        let reply = hub.get("/svc").await;
        assert_eq!(reply.status(), status, "{cause}");
        let problem = problem_of(reply).await;
        assert_eq!((&problem["cause"], &problem["attempts"]), (&cause.into(), &1.into()), "{problem}");
        assert_eq!(problem["service"], "svc");
    }
}

#[tokio::test]
async fn an_instance_that_can_not_be_reached_costs_nobody_a_request() {
    let (refusing, good) = (Refusing::bind(), Instance::reply(HELLO).await);
    let hub = Hub::start(|config| config.eject.failures = 0).await;
    hub.set("svc", &[refusing.info("svc"), good.info("svc")]).await;
    for n in 0..120 {
        let method = ["GET", "POST"][n % 2];
        let reply = hub.request(method, "/svc").body("x").send().await.unwrap();
        assert_eq!(reply.status(), 200, "{n}");
    }
    assert_eq!(good.requests().len(), 120);
    assert!(hub.metric("retries", &["svc"]).await > 30);
}

#[tokio::test]
async fn what_an_instance_may_have_seen_is_done_twice_only_where_that_is_harmless() {
    let (good, closing) = (Instance::reply(HELLO).await, closing().await);
    let hub = Hub::start(|config| config.eject.failures = 0).await;
    hub.set("svc", &[closing.info("svc"), good.info("svc")]).await;
    let mut failed = 0;
    for n in 0..100 {
        let put = hub.request("PUT", "/svc").body(format!("put {n}")).send().await.unwrap();
        assert_eq!(put.status(), 200);
        let post = hub.request("POST", "/svc").body(format!("post {n}")).send().await.unwrap();
        failed += u32::from(post.status() == 502);
    }
    assert!((20..80).contains(&failed), "{failed} of 100");
    let seen: Vec<_> = closing.requests().into_iter().chain(good.requests()).collect();
    for n in 0..100 {
        let posts = seen.iter().filter(|request| request.ends_with(&format!("\r\npost {n}"))).count();
        assert_eq!(posts, 1, "post {n}");
        // The whole body again, from what was kept.
        assert!(good.requests().iter().any(|request| request.ends_with(&format!("\r\nput {n}"))));
    }
}

#[tokio::test]
async fn a_body_too_long_to_keep_is_not_sent_again() {
    let (good, closing) = (Instance::reply(HELLO).await, closing().await);
    let hub = Hub::start(|config| config.eject.failures = 0).await;
    hub.set("svc", &[closing.info("svc"), good.info("svc")]).await;
    let mut statuses = [0; 2];
    for _ in 0..40 {
        let reply = hub.request("PUT", "/svc").body(vec![b'x'; 100_000]).send().await.unwrap();
        statuses[usize::from(reply.status() == 502)] += 1;
    }
    assert!(statuses[0] > 5 && statuses[1] > 5, "{statuses:?}");
}

#[tokio::test]
async fn no_more_than_two_attempts_after_the_first() {
    let hub = Hub::start(|config| config.eject.failures = 0).await;
    let many: Vec<_> = (0..5).map(|_| Refusing::bind()).collect();
    hub.set("svc", &many.iter().map(|refusing| refusing.info("svc")).collect::<Vec<_>>()).await;
    let problem = problem_of(hub.get("/svc").await).await;
    assert_eq!(problem["attempts"], 3);
    // The reserve of 100 and 10 per second is all there is for a service that fails.
    for _ in 0..150 {
        hub.get("/svc").await;
    }
    let retries = hub.metric("retries", &["svc"]).await;
    assert!((100..300).contains(&retries), "{retries}");
}

#[tokio::test]
async fn a_reply_that_has_begun_is_never_begun_again() {
    let cut = Instance::script(|mut raw, seen| async move {
        let request = raw.request().await;
        seen.lock().unwrap().extend(request);
        raw.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten bytes.").await;
        while seen.lock().unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let hub = Hub::with("svc", &cut).await;
    let reply = hub.get("/svc").await;
    assert_eq!(reply.status(), 200);
    cut.seen.lock().unwrap().push("seen".to_owned());
    assert!(reply.bytes().await.is_err());
    assert_eq!(cut.requests().len(), 2);
}

#[tokio::test]
async fn a_client_that_spoils_its_body_is_not_the_instances_failure() {
    let instance = Instance::script(|mut raw, _| async move {
        raw.read_until(|text| text.contains("first")).await;
        raw.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nwell\r\n").await;
        raw.rest().await;
    })
    .await;
    let hub = Hub::start(|config| config.eject.failures = 1).await;
    hub.set("svc", &[instance.info("svc")]).await;
    let mut raw = hub.connect().await;
    raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    raw.read_until(|text| text.contains("well")).await;
    raw.write("no chunk\r\n").await;
    assert_eq!(raw.rest().await, "");
    until("the request is over", async || hub.metric("in_flight", &["svc"]).await == 0).await;
    assert_eq!(hub.metric("instance_failures", &["svc"]).await, 0);
}

/// Closes a connection after a reply without saying so, each time or at random.
async fn unsteady(share: f64) -> Instance {
    Instance::script(move |mut raw, seen| async move {
        while let Some(request) = raw.request().await {
            seen.lock().unwrap().push(request);
            raw.write(HELLO).await;
            if rand::rng().random_bool(share) {
                // A reset, which is as rude as it gets.
                SockRef::from(&raw.0).set_linger(Some(Duration::ZERO)).unwrap();
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn no_storm_of_stale_connections_fails_a_request() {
    for share in [1.0, 0.3] {
        let instance = unsteady(share).await;
        let hub = Hub::with("svc", &instance).await;
        let all = (0..16).map(async |_| {
            for _ in 0..100 {
                let reply = hub.get("/svc").await;
                // A reset may overtake the reply's own bytes; what counts is that the gateway never made it a 502.
                assert_eq!(reply.status(), 200);
            }
        });
        futures_util::future::join_all(all).await;
        assert!(instance.requests().len() >= 1600);
        assert_eq!(hub.metric("failures", &["svc"]).await, 0);
    }
}

#[tokio::test]
async fn a_silent_instance_is_left_for_another_within_the_deadline() {
    let (good, silent) = (Instance::reply(HELLO).await, silent().await);
    let hub = Hub::start(|config| {
        let own = ServiceConfig { first_byte: Some(Duration::from_millis(100)), ..ServiceConfig::default() };
        config.services.insert("svc".to_owned(), own);
    })
    .await;
    hub.set("svc", &[silent.info("svc"), good.info("svc")]).await;
    for _ in 0..30 {
        assert_eq!(hub.get("/svc").await.status(), 200);
    }
    assert!(!silent.requests().is_empty());
    // What it may have begun to do is not done again.
    let posts =
        (0..10).map(async |_| hub.request("POST", "/svc").body("x").send().await.unwrap().status().as_u16());
    let statuses = futures_util::future::join_all(posts).await;
    assert!(statuses.iter().all(|status| [200, 504].contains(status)), "{statuses:?}");
}

#[tokio::test]
async fn instances_that_restart_one_after_the_other_fail_no_request() {
    let hub = Arc::new(Hub::start(|_| ()).await);
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(Instance::reply(HELLO).await);
    }
    let infos = |instances: &[Instance]| instances.iter().map(|i| i.info("svc")).collect::<Vec<_>>();
    hub.set("svc", &infos(&instances)).await;
    let stop = Arc::new(AtomicU32::new(0));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (hub, stop) = (hub.clone(), stop.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while stop.load(Relaxed) == 0 {
                    let reply = hub.get("/svc").await;
                    assert_eq!(reply.status(), 200, "{}", reply.text().await.unwrap());
                    count += 1;
                }
                count
            })
        })
        .collect();
    for n in 0..12 {
        // Killed: it is gone before the gateway hears of it, with requests on its connections.
        drop(instances.remove(0));
        tokio::time::sleep(Duration::from_millis(20)).await;
        instances.push(Instance::reply(HELLO).await);
        hub.set("svc", &infos(&instances)).await;
        assert!(!clients.iter().any(|client| client.is_finished()), "a client failed in round {n}");
    }
    stop.store(1, Relaxed);
    let mut total = 0;
    for client in clients {
        total += client.await.unwrap();
    }
    assert!(total > 30, "{total} requests");
}

#[tokio::test]
async fn a_burst_waits_for_connections_and_fails_no_request() {
    let instance = Instance::script(|mut raw, seen| async move {
        while let Some(request) = raw.request().await {
            seen.lock().unwrap().push(request);
            tokio::time::sleep(Duration::from_millis(10)).await;
            raw.write(HELLO).await;
        }
    })
    .await;
    let hub = Hub::start(|config| config.timeouts.connect = Duration::from_secs(5)).await;
    hub.set("svc", &[instance.info("svc")]).await;
    let all =
        (0..500).map(async |_| hub.request("POST", "/svc").body("x").send().await.unwrap().status().as_u16());
    let statuses = futures_util::future::join_all(all).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(instance.requests().len(), 500);
    let pooled = hub.metric("pooled", &["svc"]).await;
    assert!(pooled <= 500, "{pooled}");
}

#[tokio::test]
async fn an_instance_that_stops_reading_is_given_up_and_blamed() {
    let stuck = Instance::script(|mut raw, _| async move {
        raw.read_until(|text| text.contains("\r\n\r\n")).await;
        std::future::pending::<()>().await;
    })
    .await;
    let hub = Hub::start(|config| config.timeouts.idle = Duration::from_millis(300)).await;
    hub.set("svc", &[stuck.info("svc")]).await;
    // More than all the buffers on the way hold.
    let reply = hub.request("POST", "/svc").body(vec![b'x'; 32 << 20]).send().await.unwrap();
    assert_eq!(reply.status(), 504);
    assert_eq!(problem_of(reply).await["cause"], "reply-timeout");
    assert_eq!(hub.metric("instance_failures", &[]).await, 1);
}
