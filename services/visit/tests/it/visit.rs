//! Visits over HTTP.

use std::collections::BTreeSet;
use std::path::Path;

use hubspoke_chassis::Config;
use hubspoke_chassis::config::Common;
use hubspoke_client::log::FewerCopies;
use hubspoke_testkit::{DEADLINE, FakeLog, FakeRegistry, eventually};
use hubspoke_visit::counter::StateError;
use hubspoke_visit::{CountStorage, PROCESS, VisitConfig, VisitServer, VisitServerError};
use reqwest::{Client, Response};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// A visit service with a registry and a log instance.
struct Visit {
    url: String,
    http: Client,
    log: FakeLog,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), VisitServerError>>,
    _registry: FakeRegistry,
}

impl Visit {
    async fn start(change: impl FnOnce(&mut Config<VisitConfig>)) -> Self {
        let (registry, log) = (FakeRegistry::core_only().await, FakeLog::start().await);
        registry.set("log", &[log.info()]);
        let mut common = Common::of(&PROCESS).unwrap();
        common.listen = "127.0.0.1:0".parse().unwrap();
        common.registry.url = registry.url();
        let mut config = Config { common, own: VisitConfig::default() };
        change(&mut config);
        // Another test may be starting a process, which has copies of all locks until its program runs.
        let mut server = None;
        eventually("the state file is free", async || match VisitServer::bind(config.clone()).await {
            Err(VisitServerError::State(StateError::InUse(_))) => false,
            bound => server.replace(bound.unwrap()).is_none(),
        })
        .await;
        let server = server.unwrap();
        let url = format!("http://{}", server.local_addr());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.run(async move { drop(stopped.await) }));
        let http = Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
        let visit = Self { url, http, log, stop: Some(stop), task, _registry: registry };
        eventually("the service is ready", async || visit.get("/readyz").await.status() == 200).await;
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
        timeout(DEADLINE, self.task).await.expect("it does not stop").unwrap().unwrap();
    }
}

fn in_file(path: &Path) -> impl FnOnce(&mut Config<VisitConfig>) {
    move |config| {
        config.own.state = CountStorage::File;
        config.own.file = path.to_owned();
    }
}

#[tokio::test]
async fn each_visit_has_its_number_and_its_log_entry() {
    let visit = Visit::start(|_| {}).await;
    assert_eq!((visit.count("/").await, visit.count("/visit").await), (1, 2));
    let mut visitors = JoinSet::new();
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
    let logged: BTreeSet<String> = visit.log.texts().into_iter().collect();
    assert_eq!(logged, (1..=202).map(|n| format!("visit {n}")).collect());
    assert_eq!(visit.log.texts().len(), 202);
    visit.stop().await;
}

#[tokio::test]
async fn head_and_stats_do_not_count() {
    let visit = Visit::start(|_| {}).await;
    let head = visit.http.head(format!("{}/visit", visit.url)).send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(visit.count("/visit").await, 1);
    let reply = visit.get("/visit/stats").await;
    let instance = reply.headers()["hub-instance"].to_str().unwrap().to_owned();
    let stats: Value = reply.json().await.unwrap();
    assert_eq!((&stats["total"], &stats["per_minute"]), (&1.into(), &1.into()));
    assert_eq!(stats["instance"], instance);
    assert_eq!(visit.http.post(format!("{}/visit", visit.url)).send().await.unwrap().status(), 405);
    assert_eq!(visit.log.texts(), ["visit 1"]);
    visit.stop().await;
}

#[tokio::test]
async fn a_visit_that_can_not_be_logged_fails_and_its_number_is_not_used_again() {
    let visit = Visit::start(|_| {}).await;
    assert_eq!(visit.count("/visit").await, 1);
    visit.log.answer_always(Some(507));
    let reply = visit.get("/visit").await;
    assert_eq!(reply.status(), 503);
    assert_eq!(reply.headers()["retry-after"], "1");
    assert_eq!(reply.headers()["content-type"], "application/problem+json");
    assert!(!reply.text().await.unwrap().contains("507"), "the cause is logged, not sent to the caller");
    visit.log.answer_always(None);
    assert_eq!(visit.count("/visit").await, 3);
    assert_eq!(visit.log.accepted(), ["visit 1", "visit 3"]);
    visit.stop().await;
}

#[tokio::test]
async fn a_count_in_a_file_continues_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("visit.count");
    for expected in 1..=3 {
        let visit = Visit::start(in_file(&file)).await;
        assert_eq!(visit.count("/visit").await, expected);
        visit.stop().await;
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "3\n");
}

#[tokio::test]
async fn replicas_with_etcd_share_one_count_and_without_it_visits_fail_in_time() {
    let Some(mut cluster) = hubspoke_testkit::etcd::start(1).await else { return };
    let endpoints = cluster.endpoints();
    let in_etcd = |config: &mut Config<VisitConfig>| {
        config.own.state = CountStorage::Etcd;
        config.own.etcd.endpoints = endpoints.clone();
        config.own.etcd.request_timeout = std::time::Duration::from_secs(1);
    };
    let (one, two) = (Visit::start(in_etcd).await, Visit::start(in_etcd).await);
    for expected in [1, 3, 5] {
        assert_eq!(one.count("/visit").await, expected);
        assert_eq!(two.count("/visit").await, expected + 1);
    }
    let stats: Value = one.get("/visit/stats").await.json().await.unwrap();
    assert_eq!(stats["total"], 6, "of all replicas");
    let metrics = one.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("hub_visit_count_writes_total"), "{metrics}");
    cluster.kill_all().await;
    let refused = one.get("/visit").await;
    assert_eq!(
        (refused.status(), &refused.headers()["retry-after"]),
        (503.try_into().unwrap(), &"1".try_into().unwrap())
    );
    let problem = refused.text().await.unwrap();
    assert!(problem.contains("urn:hubspoke:problem:not-counted"), "{problem}");
    assert!(!problem.contains("127.0.0.1"), "the cause is logged, not sent to the caller");
    assert_eq!(one.get("/readyz").await.status(), 200, "the others are away, too");
    cluster.restart_all().await;
    assert_eq!(two.count("/visit").await, 7);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn the_routes_are_below_the_registered_name() {
    let visit = Visit::start(|config| config.common.name = "hits".to_owned()).await;
    assert_eq!((visit.count("/hits").await, visit.count("/").await), (1, 2));
    assert_eq!(visit.get("/visit").await.status(), 404);
    assert_eq!(visit.get("/hits/stats").await.status(), 200);
    visit.stop().await;
}

#[tokio::test]
async fn with_fewer_log_instances_than_copies_a_visit_fails_or_is_counted() {
    let visit = Visit::start(|config| config.common.log_client.copies = 2).await;
    assert_eq!(visit.get("/visit").await.status(), 503);
    assert_eq!(visit.log.texts(), ["visit 1"], "stored, but not acknowledged");
    visit.stop().await;
    let accepting = Visit::start(|config| {
        config.common.log_client.copies = 2;
        config.common.log_client.fewer_copies = FewerCopies::Accept;
    })
    .await;
    assert_eq!(accepting.get("/visit").await.status(), 200);
    let metrics = accepting.get("/metrics").await.text().await.unwrap();
    let counted = metrics.lines().find(|line| line.starts_with("hub_log_client_fewer_copies_total"));
    assert!(counted.is_some_and(|line| line.ends_with(" 1")), "{counted:?}");
    accepting.stop().await;
}
