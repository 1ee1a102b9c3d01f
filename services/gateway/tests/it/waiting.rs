//! Requests for a service whose only instance is being replaced.

use std::time::{Duration, Instant};

use hubspoke_gateway::GatewayConfig;
use hubspoke_protocol::ServiceInfo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::support::*;

const WAIT: Duration = Duration::from_secs(30);

async fn gateway(change: impl FnOnce(&mut GatewayConfig)) -> Gateway {
    let change = |config: &mut GatewayConfig| {
        config.timeouts.wait = WAIT;
        change(config);
    };
    Gateway::start(change).await
}

/// A request that waits.
async fn waiting(gateway: &Gateway, request: reqwest::RequestBuilder) -> JoinHandle<reqwest::Response> {
    let before = gateway.metric("waiting", &["svc"]).await;
    let request = tokio::spawn(async { request.send().await.unwrap() });
    eventually("the request waits", async || gateway.metric("waiting", &["svc"]).await > before).await;
    request
}

#[tokio::test]
async fn a_request_waits_for_the_first_instance_that_registers() {
    let (first, second) = (FakeInstance::responding(HELLO).await, FakeInstance::responding(HELLO).await);
    let gateway = gateway(|_| ()).await;
    gateway.set("svc", &[first.info("svc")]).await;
    assert_eq!(gateway.get("/svc").await.status(), 200);
    gateway.set("svc", &[]).await;
    let get = waiting(&gateway, gateway.request("GET", "/svc")).await;
    let post = waiting(&gateway, gateway.request("POST", "/svc").body("body")).await;
    assert!(!get.is_finished() && !post.is_finished());
    gateway.set("svc", &[second.info("svc")]).await;
    assert!(get.await.unwrap().status() == 200 && post.await.unwrap().status() == 200);
    let seen = second.requests();
    assert!(seen.iter().any(|request| request.ends_with("\r\n\r\nbody")), "{seen:?}");
    assert_eq!((gateway.metric("waiting", &["svc"]).await, gateway.metric("waits", &["svc"]).await), (0, 2));
    assert_eq!(gateway.metric("retries", &["svc"]).await, 0);
}

/// A replica that is replaced refuses connections before it is removed, and its successor may listen at its address.
#[tokio::test]
async fn a_request_waits_while_the_only_instance_refuses_connections() {
    let port = ClosedPort::new();
    let gateway = gateway(|_| ()).await;
    let mut info = ServiceInfo::new("svc", port.addr().to_string());
    gateway.set("svc", &[info.clone()]).await;
    let post = waiting(&gateway, gateway.request("POST", "/svc").body("body")).await;
    let get = waiting(&gateway, gateway.request("GET", "/svc")).await;
    // It starts again, and need not register.
    let listener = TcpListener::bind(port.addr()).await.unwrap();
    let instance = FakeInstance::script_on(listener, |mut raw, seen| async move {
        while let Some(request) = raw.request().await {
            seen.lock().unwrap().push(request);
            raw.write(HELLO).await;
        }
    });
    assert!(get.await.unwrap().status() == 200 && post.await.unwrap().status() == 200);
    assert_eq!(instance.requests().len(), 2);
    // Or it registers another start.
    info.id = Some("svc-2".to_owned());
    gateway.set("svc", &[info]).await;
    assert_eq!(gateway.get("/svc").await.status(), 200);
}

#[tokio::test]
async fn the_wait_is_bounded_in_time() {
    let gateway = gateway(|config| config.timeouts.wait = Duration::from_millis(300)).await;
    gateway.set("svc", &[]).await;
    let began = Instant::now();
    let response = gateway.get("/svc").await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(problem_of(response).await["cause"], "no-instance");
    let refusing = ClosedPort::new();
    let info = ServiceInfo::new("svc", refusing.addr().to_string());
    gateway.set("svc", &[info]).await;
    let began = Instant::now();
    let response = gateway.get("/svc").await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(response.status(), 502);
    assert_eq!(problem_of(response).await["cause"], "connect-refused");
    assert_eq!(gateway.get("/nowhere").await.status(), 404);
}

#[tokio::test]
async fn so_many_requests_wait_and_a_client_that_leaves_frees_its_place() {
    let gateway = gateway(|config| config.limits.waiting = 1).await;
    gateway.set("svc", &[]).await;
    let mut client = gateway.connect().await;
    client.write("POST /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n").await;
    eventually("the request waits", async || gateway.metric("waiting", &["svc"]).await == 1).await;
    assert_eq!(gateway.get("/svc").await.status(), 503);
    drop(client);
    eventually("its place is free", async || gateway.metric("waiting", &["svc"]).await == 0).await;
    let request = waiting(&gateway, gateway.request("GET", "/svc")).await;
    request.abort();
}

#[tokio::test]
async fn without_a_wait_the_answer_comes_at_once() {
    let gateway = gateway(|config| config.timeouts.wait = Duration::ZERO).await;
    gateway.set("svc", &[]).await;
    assert_eq!(gateway.get("/svc").await.status(), 503);
    assert_eq!(gateway.metric("waits", &["svc"]).await, 0);
}

/// An instance that is there and breaks off is not waited for.
#[tokio::test]
async fn a_request_that_an_instance_broke_off_does_not_wait() {
    let broken = FakeInstance::script(|mut raw, _| async move {
        raw.request().await;
    })
    .await;
    let gateway = gateway(|_| ()).await;
    gateway.set("svc", &[broken.info("svc")]).await;
    let response = gateway.get("/svc").await;
    assert_eq!(problem_of(response).await["cause"], "connection-broken");
    assert_eq!(gateway.metric("waits", &["svc"]).await, 0);
}
