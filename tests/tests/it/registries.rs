//! Several registries on a real etcd, under load and faults: no request fails, and nobody who lives is removed.
//! `HUBSPOKE_TEST_ROUNDS` and `HUBSPOKE_TEST_OUTAGE` (seconds) make it longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hubspoke_protocol::{CatalogView, SERVICES_PATH, ServiceInfo};
use hubspoke_registry::config::StoreKind;
use hubspoke_testkit::{TestServer, eventually};
use hubspoke_tests::{Platform, RunningService, live};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Visits through the gateway, until it is dropped or stopped.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    callers: JoinSet<Vec<String>>,
}

impl Load {
    fn start(platform: &Platform) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut callers = JoinSet::new();
        for _ in 0..4 {
            let (stop, done) = (stop.clone(), done.clone());
            let (http, url) = (platform.http.clone(), format!("{}/visit", platform.gateway.url()));
            callers.spawn(async move {
                let mut failures = Vec::new();
                while !stop.load(Relaxed) {
                    match http.get(&url).send().await {
                        Ok(reply) if reply.status() == 200 => done.fetch_add(1, Relaxed),
                        Ok(reply) => {
                            failures.push(reply.text().await.unwrap_or_default());
                            0
                        }
                        Err(error) => {
                            failures.push(format!("{error:?}"));
                            0
                        }
                    };
                    sleep(Duration::from_millis(2)).await;
                }
                failures
            });
        }
        Self { stop, done, callers }
    }

    /// The number of visits, after checking that none failed.
    async fn stop(self) -> u64 {
        self.stop.store(true, Relaxed);
        let failures: Vec<_> = self.callers.join_all().await.into_iter().flatten().collect();
        assert!(failures.is_empty(), "{} failed: {:?}", failures.len(), failures.first());
        self.done.load(Relaxed)
    }
}

async fn view(platform: &Platform, registry: &RunningService) -> Option<CatalogView> {
    let url = format!("{}{SERVICES_PATH}", registry.url());
    platform.http.get(url).send().await.ok()?.json().await.ok()
}

/// Waits until these registries show the same, in the same states, which must not take longer than this.
async fn agree(platform: &Platform, registries: &[&RunningService], within: Duration) {
    let began = Instant::now();
    eventually("all registries show the same", || async {
        let mut views = Vec::new();
        for registry in registries {
            let Some(view) = view(platform, registry).await else { return false };
            let states = view.services.values().flatten().map(|it| (it.info.id().to_owned(), it.state));
            views.push((view.revision.epoch, live(&view), states.collect::<Vec<_>>()));
        }
        views.windows(2).all(|pair| pair[0] == pair[1])
    })
    .await;
    assert!(began.elapsed() < within, "{:?}", began.elapsed());
}

/// How many instances a registry removed because they missed heartbeats, or saw removed.
async fn removed(platform: &Platform, registry: &RunningService) -> u64 {
    let text = platform.http.get(format!("{}/metrics", registry.url())).send().await.unwrap();
    let text = text.text().await.unwrap();
    let mut lines = text.lines().filter(|line| {
        line.starts_with("hub_registry_removals_total{") && line.contains("reason=\"heartbeat\"")
    });
    lines.next().and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn registries_and_etcd_fail_in_turn_and_no_request_does() {
    let Some(mut etcd) = hubspoke_testkit::etcd::start(3).await else { return };
    let mut settings = hubspoke_registry::Settings::default();
    settings.heartbeat.interval = Duration::from_millis(500);
    settings.heartbeat.gap = Duration::from_millis(200);
    settings.store = StoreKind::Etcd;
    settings.etcd.endpoints = etcd.endpoints();
    settings.etcd.lease = Duration::from_secs(2);
    let rounds = usize::try_from(number("HUBSPOKE_TEST_ROUNDS", 1)).unwrap();
    let mut platform = Platform::start_several(settings, 2 + rounds).await.log(3).await.visit(2).await;
    let greeting =
        Router::new().route("/greeter", get(async || "hello")).route("/heart-beat", get(async || ""));
    let greeter = TestServer::start(greeting).await;
    let load = Load::start(&platform);
    for round in 0..rounds {
        // A registry dies; whoever comes right after that is routable within a second.
        let dead = platform.registries.pop().unwrap();
        dead.kill().await;
        let died = Instant::now();
        let info = ServiceInfo {
            id: Some(format!("greeter-{round}")),
            ..ServiceInfo::new("greeter", greeter.addr.to_string())
        };
        let body = serde_json::to_string(&info).unwrap();
        let url = format!("{}{SERVICES_PATH}", platform.registry.url());
        let reply = platform.http.post(&url).body(body.clone()).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        let routed = format!("{}/greeter", platform.gateway.url());
        eventually("it is routed", || async {
            platform.http.get(&routed).send().await.is_ok_and(|reply| reply.status() == 200)
        })
        .await;
        let routable = died.elapsed();
        assert!(routable < Duration::from_secs(1), "{routable:?}");
        // etcd's leader dies.
        let leader = etcd.leader().await;
        etcd.kill(leader).await;
        sleep(Duration::from_millis(500)).await;
        etcd.restart(leader).await;
        etcd.leader().await;
        eventually("it can leave", || async {
            let reply = platform.http.delete(&url).body(body.clone()).send().await.unwrap();
            reply.status() == 200
        })
        .await;
    }
    // All of etcd is away for a while.
    etcd.kill_all().await;
    sleep(Duration::from_secs(number("HUBSPOKE_TEST_OUTAGE", 4))).await;
    etcd.restart_all().await;
    etcd.leader().await;
    let all: Vec<_> = platform.registries.iter().chain([&platform.registry]).collect();
    agree(&platform, &all, Duration::from_secs(2)).await;
    for registry in all {
        assert_eq!(removed(&platform, registry).await, 0, "nobody who lives is removed");
    }
    platform.settled().await;
    let visits = load.stop().await;
    assert!(visits > 500, "{visits} visits");
}
