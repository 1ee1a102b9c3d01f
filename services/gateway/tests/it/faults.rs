//! Instances that fail: what the client gets, and that the request is retried on another instance if that is safe.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use hubspoke_protocol::ServiceInfo;
use rand::RngExt;
use socket2::SockRef;

use super::support::*;

/// An instance that nothing listens for: connections to it are refused.
fn refusing(port: &ClosedPort) -> ServiceInfo {
    ServiceInfo::new("svc", port.addr().to_string())
}

/// Closes each connection after it has read a request.
async fn closing() -> FakeInstance {
    FakeInstance::script(|mut raw, seen| async move {
        if let Some(request) = raw.request().await {
            seen.lock().unwrap().push(request);
        }
    })
    .await
}

/// Reads and never answers.
async fn silent() -> FakeInstance {
    FakeInstance::script(|mut raw, seen| async move {
        while let Some(request) = raw.request().await {
            seen.lock().unwrap().push(request);
        }
    })
    .await
}

#[tokio::test]
async fn each_failure_has_its_status_and_cause() {
    let garbage = FakeInstance::responding("not HTTP at all\r\n\r\n").await;
    let cut = FakeInstance::script(|mut raw, _| async move {
        raw.request().await;
        raw.write("HTTP/1.1 200 OK\r\ncontent-le").await;
    })
    .await;
    let (port, closing, silent) = (ClosedPort::new(), closing().await, silent().await);
    let gateway = Gateway::start(|config| {
        config.timeouts.first_byte = Duration::from_millis(200);
        config.eject.failures = 0;
    })
    .await;
    for (info, status, cause) in [
        (refusing(&port), 502, "connect-refused"),
        (closing.info("svc"), 502, "connection-broken"),
        (garbage.info("svc"), 502, "bad-reply"),
        (cut.info("svc"), 502, "bad-reply"),
        (silent.info("svc"), 504, "reply-timeout"),
    ] {
        gateway.set("svc", &[info]).await;
        let response = gateway.get("/svc").await;
        assert_eq!(response.status(), status, "{cause}");
        let problem = problem_of(response).await;
        assert_eq!((&problem["cause"], &problem["attempts"]), (&cause.into(), &1.into()), "{problem}");
        assert_eq!(problem["service"], "svc");
    }
}

#[tokio::test]
async fn an_unreachable_instance_fails_no_request() {
    let (port, good) = (ClosedPort::new(), FakeInstance::responding(HELLO).await);
    let gateway = Gateway::start(|config| config.eject.failures = 0).await;
    gateway.set("svc", &[refusing(&port), good.info("svc")]).await;
    for n in 0..120 {
        let method = ["GET", "POST"][n % 2];
        let response = gateway.request(method, "/svc").body("x").send().await.unwrap();
        assert_eq!(response.status(), 200, "{n}");
    }
    assert_eq!(good.requests().len(), 120);
    assert!(gateway.metric("retries", &["svc"]).await > 30);
}

#[tokio::test]
async fn a_request_that_an_instance_may_have_seen_is_retried_only_if_it_is_idempotent() {
    let (good, closing) = (FakeInstance::responding(HELLO).await, closing().await);
    let gateway = Gateway::start(|config| config.eject.failures = 0).await;
    gateway.set("svc", &[closing.info("svc"), good.info("svc")]).await;
    let mut failed = 0;
    for n in 0..100 {
        let put = gateway.request("PUT", "/svc").body(format!("put {n}")).send().await.unwrap();
        assert_eq!(put.status(), 200);
        let post = gateway.request("POST", "/svc").body(format!("post {n}")).send().await.unwrap();
        failed += u32::from(post.status() == 502);
    }
    assert!((20..80).contains(&failed), "{failed} of 100");
    let seen: Vec<_> = closing.requests().into_iter().chain(good.requests()).collect();
    for n in 0..100 {
        let posts = seen.iter().filter(|request| request.ends_with(&format!("\r\npost {n}"))).count();
        assert_eq!(posts, 1, "post {n}");
        // The whole body again, from the replay buffer.
        assert!(good.requests().iter().any(|request| request.ends_with(&format!("\r\nput {n}"))));
    }
}

#[tokio::test]
async fn a_body_longer_than_the_replay_buffer_is_not_retried() {
    let (good, closing) = (FakeInstance::responding(HELLO).await, closing().await);
    let gateway = Gateway::start(|config| config.eject.failures = 0).await;
    gateway.set("svc", &[closing.info("svc"), good.info("svc")]).await;
    let mut statuses = [0; 2];
    for _ in 0..40 {
        let response = gateway.request("PUT", "/svc").body(vec![b'x'; 100_000]).send().await.unwrap();
        statuses[usize::from(response.status() == 502)] += 1;
    }
    assert!(statuses[0] > 5 && statuses[1] > 5, "{statuses:?}");
}

#[tokio::test]
async fn at_most_two_retries_within_the_budget() {
    let gateway = Gateway::start(|config| config.eject.failures = 0).await;
    let ports: Vec<_> = (0..5).map(|_| ClosedPort::new()).collect();
    gateway.set("svc", &ports.iter().map(refusing).collect::<Vec<_>>()).await;
    let problem = problem_of(gateway.get("/svc").await).await;
    assert_eq!(problem["attempts"], 3);
    // A failing service has the initial reserve of 100 and 10 per second.
    for _ in 0..150 {
        gateway.get("/svc").await;
    }
    let retries = gateway.metric("retries", &["svc"]).await;
    assert!((100..300).contains(&retries), "{retries}");
}

#[tokio::test]
async fn a_response_that_has_begun_is_never_retried() {
    let cut = FakeInstance::script(|mut raw, seen| async move {
        let request = raw.request().await;
        seen.lock().unwrap().extend(request);
        raw.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten bytes.").await;
        while seen.lock().unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let gateway = Gateway::with("svc", &cut).await;
    let response = gateway.get("/svc").await;
    assert_eq!(response.status(), 200);
    cut.seen.lock().unwrap().push("seen".to_owned());
    assert!(response.bytes().await.is_err());
    assert_eq!(cut.requests().len(), 2);
}

#[tokio::test]
async fn an_invalid_body_is_not_the_instances_failure() {
    let instance = FakeInstance::script(|mut raw, _| async move {
        raw.read_until(|text| text.contains("first")).await;
        raw.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nwell\r\n").await;
        raw.read_to_end().await;
    })
    .await;
    let gateway = Gateway::start(|config| config.eject.failures = 1).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    let mut raw = gateway.connect().await;
    raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    raw.read_until(|text| text.contains("well")).await;
    raw.write("no chunk\r\n").await;
    assert_eq!(raw.read_to_end().await, "");
    eventually("the request is over", async || gateway.metric("in_flight", &["svc"]).await == 0).await;
    assert_eq!(gateway.metric("instance_failures", &["svc"]).await, 0);
}

/// Resets the connection after a share of its responses.
async fn unsteady(share: f64) -> FakeInstance {
    FakeInstance::script(move |mut raw, seen| async move {
        while let Some(request) = raw.request().await {
            seen.lock().unwrap().push(request);
            raw.write(HELLO).await;
            if rand::rng().random_bool(share) {
                SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO)).unwrap();
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn stale_connections_fail_no_request() {
    for share in [1.0, 0.3] {
        let instance = unsteady(share).await;
        let gateway = Gateway::with("svc", &instance).await;
        let all = (0..16).map(async |_| {
            for _ in 0..100 {
                let response = gateway.get("/svc").await;
                // The reset may discard bytes of the body. It must not become a 502.
                assert_eq!(response.status(), 200);
            }
        });
        futures_util::future::join_all(all).await;
        assert!(instance.requests().len() >= 1600);
        assert_eq!(gateway.metric("failures", &["svc"]).await, 0);
    }
}

#[tokio::test]
async fn a_request_to_a_silent_instance_is_retried_within_the_deadline() {
    let (good, silent) = (FakeInstance::responding(HELLO).await, silent().await);
    let gateway = Gateway::start(|config| {
        config.services.entry("svc".to_owned()).or_default().first_byte = Some(Duration::from_millis(100));
    })
    .await;
    gateway.set("svc", &[silent.info("svc"), good.info("svc")]).await;
    for _ in 0..30 {
        assert_eq!(gateway.get("/svc").await.status(), 200);
    }
    assert!(!silent.requests().is_empty());
    // A POST that it may have begun to process is not retried.
    let posts = (0..10)
        .map(async |_| gateway.request("POST", "/svc").body("x").send().await.unwrap().status().as_u16());
    let statuses = futures_util::future::join_all(posts).await;
    assert!(statuses.iter().all(|status| [200, 504].contains(status)), "{statuses:?}");
}

#[tokio::test]
async fn a_rolling_restart_fails_no_request() {
    let gateway = Arc::new(Gateway::start(|_| ()).await);
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(FakeInstance::responding(HELLO).await);
    }
    let infos = |instances: &[FakeInstance]| instances.iter().map(|i| i.info("svc")).collect::<Vec<_>>();
    gateway.set("svc", &infos(&instances)).await;
    let stop = Arc::new(AtomicU32::new(0));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (gateway, stop) = (gateway.clone(), stop.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while stop.load(Relaxed) == 0 {
                    let response = gateway.get("/svc").await;
                    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
                    count += 1;
                }
                count
            })
        })
        .collect();
    for n in 0..12 {
        // Killed, with requests on its connections, before the gateway learns of it.
        drop(instances.remove(0));
        tokio::time::sleep(Duration::from_millis(20)).await;
        instances.push(FakeInstance::responding(HELLO).await);
        gateway.set("svc", &infos(&instances)).await;
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
    let instance = FakeInstance::script(|mut raw, seen| async move {
        while let Some(request) = raw.request().await {
            seen.lock().unwrap().push(request);
            tokio::time::sleep(Duration::from_millis(10)).await;
            raw.write(HELLO).await;
        }
    })
    .await;
    let gateway = Gateway::start(|config| config.timeouts.connect = Duration::from_secs(5)).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    let all = (0..500)
        .map(async |_| gateway.request("POST", "/svc").body("x").send().await.unwrap().status().as_u16());
    let statuses = futures_util::future::join_all(all).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(instance.requests().len(), 500);
    let pooled = gateway.metric("pooled", &["svc"]).await;
    assert!(pooled <= 500, "{pooled}");
}

#[tokio::test]
async fn an_instance_that_stops_reading_fails_the_attempt() {
    let stuck = FakeInstance::script(|mut raw, _| async move {
        raw.read_until(|text| text.contains("\r\n\r\n")).await;
        std::future::pending::<()>().await;
    })
    .await;
    let gateway = Gateway::start(|config| config.timeouts.idle = Duration::from_millis(300)).await;
    gateway.set("svc", &[stuck.info("svc")]).await;
    // More than all buffers on the way hold.
    let response = gateway.request("POST", "/svc").body(vec![b'x'; 32 << 20]).send().await.unwrap();
    assert_eq!(response.status(), 504);
    assert_eq!(problem_of(response).await["cause"], "reply-timeout");
    assert_eq!(gateway.metric("instance_failures", &[]).await, 1);
}
