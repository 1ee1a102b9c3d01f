//! The visit service over HTTP, with a stand-in for registry and log.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should say where"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{any, post};
use hubspoke_chassis::Config;
use hubspoke_chassis::config::Common;
use hubspoke_visit::{PROCESS, Server, ServerError, State, VisitConfig};
use reqwest::{Client, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// One server that is both: a registry which knows one log instance, itself, and that log instance.
#[derive(Clone, Default)]
struct Hub {
    url: String,
    entries: Arc<Mutex<Vec<String>>>,
    /// The log instance takes nothing.
    broken: Arc<AtomicBool>,
}

impl Hub {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let hub = Self { url: format!("http://{addr}"), ..Self::default() };
        let lists = format!(r#"{{"log":[{{"Name":"log","Addr":"{addr}"}}]}}"#);
        let log = hub.clone();
        let take = move |entry: String| async move {
            if log.broken.load(Ordering::Relaxed) {
                return StatusCode::INSUFFICIENT_STORAGE;
            }
            log.entries.lock().unwrap().push(entry);
            StatusCode::OK
        };
        let app =
            Router::new().route("/services", any(move || async move { lists })).route("/log", post(take));
        tokio::spawn(async move { axum::serve(listener, app).await });
        hub
    }

    fn entries(&self) -> Vec<String> {
        self.entries.lock().unwrap().clone()
    }
}

struct Visit {
    url: String,
    http: Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ServerError>>,
}

impl Visit {
    async fn start(hub: &Hub, change: impl FnOnce(&mut Config<VisitConfig>)) -> Self {
        let mut common = Common::of(&PROCESS).unwrap();
        common.listen = "127.0.0.1:0".parse().unwrap();
        common.registry.url.clone_from(&hub.url);
        let mut config = Config { common, own: VisitConfig::default() };
        change(&mut config);
        let server = Server::bind(config).await.unwrap();
        let url = format!("http://{}", server.local_addr());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.run(async move { drop(stopped.await) }));
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        let visit = Self { url, http, stop: Some(stop), task };
        let deadline = Instant::now() + Duration::from_secs(20);
        while visit.get("/readyz").await.status() != 200 {
            assert!(Instant::now() < deadline, "never ready");
            sleep(Duration::from_millis(10)).await;
        }
        visit
    }

    async fn get(&self, path: &str) -> Response {
        self.http.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    async fn count(&self, path: &str) -> u64 {
        let reply = self.get(path).await;
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["cache-control"], "no-store");
        reply.text().await.unwrap().parse().unwrap()
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        let ended = tokio::time::timeout(Duration::from_secs(20), self.task).await;
        ended.expect("it does not stop").unwrap().unwrap();
    }
}

fn in_file(path: &Path) -> impl FnOnce(&mut Config<VisitConfig>) {
    move |config| config.own = VisitConfig { state: State::File, file: path.to_owned() }
}

#[tokio::test]
async fn each_visit_has_its_number_and_its_log_entry() {
    let hub = Hub::start().await;
    let visit = Visit::start(&hub, |_| {}).await;
    assert_eq!((visit.count("/").await, visit.count("/visit").await), (1, 2));
    let mut visitors = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (http, url) = (visit.http.clone(), visit.url.clone());
        visitors.spawn(async move {
            let mut numbers = Vec::new();
            for _ in 0..20 {
                let reply = http.get(&url).send().await.unwrap();
                numbers.push(reply.text().await.unwrap().parse::<u64>().unwrap());
            }
            numbers
        });
    }
    let numbers: BTreeSet<u64> = visitors.join_all().await.concat().into_iter().collect();
    assert_eq!(numbers, (3..=202).collect());
    let logged: BTreeSet<String> = hub.entries().into_iter().collect();
    assert_eq!(logged, (1..=202).map(|n| format!("visit {n}")).collect());
    assert_eq!(hub.entries().len(), 202);
    visit.stop().await;
}

#[tokio::test]
async fn a_look_at_the_head_or_the_stats_is_no_visit() {
    let hub = Hub::start().await;
    let visit = Visit::start(&hub, |_| {}).await;
    let head = visit.http.head(format!("{}/visit", visit.url)).send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(visit.count("/visit").await, 1);
    let reply = visit.get("/visit/stats").await;
    let instance = reply.headers()["hub-instance"].to_str().unwrap().to_owned();
    let stats: Value = reply.json().await.unwrap();
    assert_eq!((&stats["total"], &stats["per_minute"]), (&1.into(), &1.into()));
    assert_eq!(stats["instance"], instance);
    assert_eq!(visit.http.post(format!("{}/visit", visit.url)).send().await.unwrap().status(), 405);
    assert_eq!(hub.entries(), ["visit 1"]);
    visit.stop().await;
}

#[tokio::test]
async fn a_visit_that_no_log_instance_takes_fails_and_its_number_is_not_used_again() {
    let hub = Hub::start().await;
    let visit = Visit::start(&hub, |_| {}).await;
    assert_eq!(visit.count("/visit").await, 1);
    hub.broken.store(true, Ordering::Relaxed);
    let reply = visit.get("/visit").await;
    assert_eq!(reply.status(), 503);
    assert_eq!(reply.headers()["retry-after"], "1");
    assert_eq!(reply.headers()["content-type"], "application/problem+json");
    assert!(!reply.text().await.unwrap().contains("507"), "the cause goes to the log, not to the caller");
    hub.broken.store(false, Ordering::Relaxed);
    assert_eq!(visit.count("/visit").await, 3);
    assert_eq!(hub.entries(), ["visit 1", "visit 3"]);
    visit.stop().await;
}

#[tokio::test]
async fn the_count_in_a_file_goes_on_after_a_restart() {
    let hub = Hub::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("visit.count");
    for expected in 1..=3 {
        let visit = Visit::start(&hub, in_file(&file)).await;
        assert_eq!(visit.count("/visit").await, expected);
        visit.stop().await;
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "3\n");
}

#[tokio::test]
async fn another_name_moves_the_routes() {
    let hub = Hub::start().await;
    let visit = Visit::start(&hub, |config| config.common.name = "hits".to_owned()).await;
    assert_eq!((visit.count("/hits").await, visit.count("/").await), (1, 2));
    assert_eq!(visit.get("/visit").await.status(), 404);
    assert_eq!(visit.get("/hits/stats").await.status(), 200);
    visit.stop().await;
}
