//! Hosts that members ask for, with a real registry and several gateways.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hubspoke_protocol::ServiceInfo;
use hubspoke_testkit::{TestServer, eventually};
use hubspoke_tests::{Platform, RunningService};
use reqwest::header::HOST;

async fn shop(service: &'static str) -> TestServer {
    let alive = Router::new().route("/heart-beat", get(|| async {}));
    TestServer::start(alive.fallback(move || async move { service })).await
}

/// Which service has the host.
async fn reached(platform: &Platform, gateway: &RunningService) -> String {
    let reply = platform.http.get(format!("{}/a", gateway.url())).header(HOST, "same.test").send();
    reply.await.unwrap().text().await.unwrap()
}

async fn register(platform: &Platform, service: &str, server: &TestServer) -> Vec<String> {
    let mut info = ServiceInfo::new(service, server.addr.to_string());
    info.meta.insert("route.hosts".to_owned(), "same.test".to_owned());
    let url = format!("{}/services", platform.registry.url());
    let request = platform.http.post(url).header("prefer", "wait=5").json(&info);
    let reply = request.send().await.unwrap();
    assert_eq!(reply.status(), 200);
    let told = reply.headers().get_all("hub-warning").iter().map(|told| told.to_str().unwrap().to_owned());
    told.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_stays_with_the_first_that_asked_whatever_starts_anew() {
    let platform = Platform::start().await;
    let servers = [shop("zoo").await, shop("bar").await, shop("zoo").await];
    assert_eq!(register(&platform, "zoo", &servers[0]).await, [""; 0]);
    assert_eq!(register(&platform, "bar", &servers[1]).await, ["host same.test: service zoo has it"]);
    assert_eq!(reached(&platform, &platform.gateway).await, "zoo");
    // A gateway that has seen neither of them before: by name, bar would be the first.
    let second = platform.another_gateway().await;
    eventually("it knows them", async || reached(&platform, &second).await == "zoo").await;
    // Zoo's next release replaces the last one; then another gateway starts.
    assert_eq!(register(&platform, "zoo", &servers[2]).await, [""; 0]);
    let url = format!("{}/services", platform.registry.url());
    let first = ServiceInfo::new("zoo", servers[0].addr.to_string());
    assert_eq!(platform.http.delete(url).json(&first).send().await.unwrap().status(), 200);
    let third = platform.another_gateway().await;
    let all = [&platform.gateway, &second, &third];
    for gateway in all {
        eventually("it knows them", async || reached(&platform, gateway).await == "zoo").await;
    }
    let refused = async |gateway: &RunningService| {
        let metrics = platform.http.get(format!("http://{}/metrics", gateway.control)).send().await.unwrap();
        let metrics = metrics.text().await.unwrap();
        metrics.lines().any(|line| line.starts_with("hub_gateway_refused_hosts") && line.contains("bar"))
    };
    for gateway in all {
        assert!(refused(gateway).await);
    }
    tokio::time::timeout(Duration::from_secs(30), third.stop()).await.unwrap();
}
