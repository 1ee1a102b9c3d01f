//! What users of the platform rely on, across all its services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use hubspoke_chassis::ProblemType;
use hubspoke_testkit::{TestServer, eventually};
use hubspoke_tests::{Platform, entries, live};
use reqwest::{Method, StatusCode};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread")]
async fn a_visit_is_counted_logged_and_answered_with_its_number() {
    let platform = Platform::start().await.log(1).await.visit(1).await;
    assert_eq!(platform.visit_count().await, 1);
    assert_eq!(platform.visit_count().await, 2);
    let logged = entries(&platform.logs[0].file);
    assert_eq!(logged.len(), 2);
    assert!(logged[1]["msg"].as_str().unwrap().contains('2'), "{}", logged[1]);
    let reply =
        platform.http.post(format!("{}/log", platform.gateway.url())).body("hello").send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::OK);
    assert_eq!(entries(&platform.logs[0].file)[2]["msg"], "hello");
}

/// The texts of all entries. There may be copies, because an entry that was not acknowledged in time is sent again, but
/// none may be missing.
fn logged(platform: &Platform) -> BTreeSet<String> {
    let entries = platform.logs.iter().flat_map(|log| entries(&log.file));
    entries.map(|entry| entry["msg"].as_str().unwrap().to_owned()).collect()
}

fn expected(visits: usize) -> BTreeSet<String> {
    (1..=visits).map(|number| format!("visit {number}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_visits_get_unique_numbers_and_one_entry_each() {
    const VISITS: usize = 1000;
    let platform = Arc::new(Platform::start().await.log(3).await.visit(1).await);
    let mut visits = JoinSet::new();
    for _ in 0..VISITS {
        let platform = platform.clone();
        visits.spawn(async move { platform.visit_count().await });
    }
    let numbers: BTreeSet<u64> = visits.join_all().await.into_iter().collect();
    assert_eq!(numbers, (1..=VISITS as u64).collect());
    assert_eq!(logged(&platform), expected(VISITS));
}

#[tokio::test(flavor = "multi_thread")]
async fn visits_spread_evenly_over_three_log_replicas() {
    const VISITS: usize = 3000;
    let platform = Arc::new(Platform::start().await.log(3).await.visit(1).await);
    let mut callers = JoinSet::new();
    for _ in 0..30 {
        let platform = platform.clone();
        callers.spawn(async move {
            for _ in 0..VISITS / 30 {
                platform.visit_count().await;
            }
        });
    }
    callers.join_all().await;
    assert_eq!(logged(&platform), expected(VISITS));
    let counts: Vec<f64> = platform.logs.iter().map(|log| entries(&log.file).len() as f64).collect();
    let even = counts.iter().sum::<f64>() / 3.0;
    let chi_squared: f64 = counts.iter().map(|count| (count - even).powi(2) / even).sum();
    // The chance of a value above 27.6 with 2 degrees of freedom is one in a million.
    assert!(chi_squared < 27.6, "chi² = {chi_squared} of {counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_follow_when_log_replicas_come_and_go() {
    let mut platform = Platform::start().await.log(1).await.visit(1).await;
    platform.visit_count().await;
    platform.add_logs(2).await;
    let before: Vec<usize> = platform.logs.iter().map(|log| entries(&log.file).len()).collect();
    assert_eq!(before, [1, 0, 0]);
    eventually("each replica has had a visit", || async {
        platform.visit_count().await;
        platform.logs.iter().all(|log| !entries(&log.file).is_empty())
    })
    .await;
    platform.logs.pop().unwrap().stop().await;
    platform.logs.pop().unwrap().stop().await;
    platform.settled().await;
    let before = entries(&platform.logs[0].file).len();
    for _ in 0..20 {
        platform.visit_count().await;
    }
    assert_eq!(entries(&platform.logs[0].file).len(), before + 20, "only one instance is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_visit_fails_while_one_log_replica_lives() {
    let mut platform = Platform::start().await.log(3).await.visit(1).await;
    let visiting = VisitLoad::start(&platform);
    visiting.at_least(200).await;
    platform.logs.remove(0).kill().await;
    visiting.at_least(200).await;
    platform.logs.remove(0).kill().await;
    visiting.at_least(200).await;
    platform.settled().await;
    visiting.at_least(200).await;
    assert_eq!(visiting.stop().await, 0, "visits failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_reached_by_its_host_and_its_member_endpoints_are_not() {
    let platform = Platform::start().await.log(1).await.visit(1).await;
    for (host, path, status) in [
        ("visit.localhost", "/visit", 200),
        ("log.localhost:20001", "/log", 200),
        ("visit.localhost", "/services", 404),
        ("visit.localhost", "/metrics", 404),
        ("visit.localhost", "/%6detrics", 404),
    ] {
        let request = platform.http.get(format!("{}{path}", platform.gateway.url())).header("host", host);
        assert_eq!(request.send().await.unwrap().status(), status, "{host}{path}");
    }
}

/// As with ctrl-c and another start, or `docker compose up --force-recreate visit`.
#[tokio::test(flavor = "multi_thread")]
async fn the_only_visit_is_replaced_under_load_and_no_visit_fails() {
    let mut platform = Platform::start().await.log(1).await.visit(1).await;
    let visiting = VisitLoad::start(&platform);
    for _ in 0..3 {
        visiting.at_least(200).await;
        platform.visits.remove(0).stop().await;
        platform = platform.visit(1).await;
    }
    visiting.at_least(200).await;
    assert_eq!(visiting.stop().await, 0, "visits failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_log_replica_a_visit_fails_and_its_number_is_not_reused() {
    let mut platform = Platform::start().await.log(1).await.visit(1).await;
    assert_eq!(platform.visit_count().await, 1);
    platform.logs.pop().unwrap().stop().await;
    let url = format!("{}/visit", platform.gateway.url());
    let reply = platform.http.get(&url).send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.headers()["content-type"], "application/problem+json");
    platform.add_logs(1).await;
    eventually("visits work again", || async {
        platform.http.get(&url).send().await.unwrap().status().is_success()
    })
    .await;
    assert!(platform.visit_count().await > 2, "the number of the failed visit is not reused");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_restarts_under_load_and_no_visit_fails() {
    let mut platform = Platform::start().await.log(3).await.visit(2).await;
    let before = platform.catalog().await.unwrap();
    let visiting = VisitLoad::start(&platform);
    visiting.at_least(200).await;
    platform.restart_registry().await;
    platform.settled().await;
    visiting.at_least(200).await;
    assert_eq!(visiting.stop().await, 0, "visits failed");
    let after = platform.catalog().await.unwrap();
    assert_ne!(before.revision.epoch, after.revision.epoch, "the state was lost, so the epoch is new");
    let same = |view| live(view).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(same(&before), same(&after));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_instance_is_removed_and_comes_back_by_registering() {
    let mut platform = Platform::start().await.log(2).await.visit(1).await;
    for _ in 0..20 {
        platform.visit_count().await;
    }
    let killed = platform.logs.remove(0);
    let (addr, file) = (killed.addr, killed.file.clone());
    let before = entries(&file).len();
    killed.kill().await;
    platform.settled().await; // removed after missed heartbeats
    let info = serde_json::json!({"Name": "log", "Addr": addr.to_string(), "RequiredServices": null});
    for _ in 0..2 {
        // A core member in another language registers the same address again, as after a crash.
        let url = format!("{}/services", platform.registry.url());
        let reply = platform.http.post(url).body(format!("{info}\n")).send().await.unwrap();
        assert_eq!((reply.status(), reply.text().await.unwrap().as_str()), (StatusCode::OK, "{}"));
    }
    let view = platform.catalog().await.unwrap();
    assert_eq!(live(&view).into_iter().filter(|(_, a)| *a == addr.to_string()).count(), 1, "listed once");
    // A real log instance continues the file of the killed one, at the same address.
    platform.restart_log(addr, &file).await;
    eventually("it gets entries again", || async {
        platform.visit_count().await;
        entries(&file).len() > before
    })
    .await;
    let numbers: Vec<u64> = entries(&file).iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "no gaps");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_service_loses_no_request_and_deregisters() {
    let mut platform = Platform::start().await.log(2).await.visit(2).await;
    let visiting = VisitLoad::start(&platform);
    visiting.at_least(200).await;
    platform.visits.pop().unwrap().stop().await;
    platform.logs.pop().unwrap().stop().await;
    let names = live(&platform.catalog().await.unwrap());
    assert_eq!(names.len(), 3, "deregistered before it stopped: {names:?}");
    visiting.at_least(200).await;
    assert_eq!(visiting.stop().await, 0, "visits failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_start_in_any_order() {
    let probe = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registry = probe.local_addr().unwrap();
    let common = hubspoke_tests::common(&hubspoke_log::PROCESS, registry);
    let dir = tempfile::tempdir().unwrap();
    let mut own = hubspoke_log::LogConfig::default();
    own.file = dir.path().join("services.log");
    let server = hubspoke_log::LogServer::bind(hubspoke_chassis::Config { common, own }).await.unwrap();
    let (log, (stop, stopped)) = (server.local_addr(), tokio::sync::oneshot::channel::<()>());
    let run = tokio::spawn(server.run(async { drop(stopped.await) }));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let status = |path: &'static str| {
        let request = http.get(format!("http://{log}{path}"));
        async move { request.send().await.unwrap().status().as_u16() }
    };
    eventually("it is live", || async { status("/livez").await == 200 }).await;
    assert_eq!(status("/readyz").await, 503, "there is no registry yet");
    drop(probe);
    let mut common = hubspoke_tests::common(&hubspoke_registry::PROCESS, registry);
    common.listen = registry;
    let own = hubspoke_registry::Settings::default();
    let server =
        hubspoke_registry::RegistryServer::bind(hubspoke_chassis::Config { common, own }).await.unwrap();
    let serving = tokio::spawn(server.run(std::future::pending()));
    eventually("it has joined", || async { status("/readyz").await == 200 }).await;
    stop.send(()).unwrap();
    run.await.unwrap().unwrap();
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_another_language_takes_part_with_plain_http() {
    let platform = Platform::start().await;
    let app = Router::new()
        .route("/heart-beat", get(async || ()))
        .route("/hello/{name}", get(async |Path(name): Path<String>| name));
    let server = TestServer::start(app).await;
    let addr = server.addr;
    let url = format!("{}/services", platform.registry.url());
    let info = format!(r#"{{"Name":"hello","Addr":"{addr}","RequiredServices":["log"]}}"#);
    let reply = platform.http.post(&url).body(info.clone()).send().await.unwrap();
    assert!(reply.headers().contains_key("hub-revision"));
    assert_eq!(reply.text().await.unwrap(), r#"{"log":[]}"#);
    let through = format!("{}/hello/world", platform.gateway.url());
    eventually("the gateway routes to it", || async {
        let reply = platform.http.get(&through).send().await.unwrap();
        reply.status().is_success() && reply.text().await.unwrap() == "world"
    })
    .await;
    let reply = platform.http.delete(&url).body(info).send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::OK);
    eventually("the gateway no longer routes to it", || async {
        !platform.http.get(&through).send().await.unwrap().status().is_success()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_answered_with_a_problem_document_of_a_known_type() {
    let platform = Platform::start().await.log(1).await.visit(1).await;
    let (registry, gateway) = (platform.registry.url(), platform.gateway.url());
    let (log, visit) = (platform.logs[0].url(), platform.visits[0].url());
    let huge = "x".repeat(8 << 20);
    let cases: [(Method, String, &str, u16); 19] = [
        (Method::POST, format!("{registry}/services"), "{", 400),
        (Method::POST, format!("{registry}/services"), "", 400),
        (Method::POST, format!("{registry}/services"), "[]", 422),
        (Method::POST, format!("{registry}/services"), r#"{"Name":"log"}"#, 422),
        (Method::POST, format!("{registry}/services"), r#"{"Name":"Log","Addr":"127.0.0.1:1"}"#, 422),
        (Method::POST, format!("{registry}/services"), r#"{"Name":"log","Addr":"here"}"#, 422),
        (Method::POST, format!("{registry}/services"), &huge, 413),
        (Method::DELETE, format!("{registry}/services"), "{", 400),
        (Method::PATCH, format!("{registry}/services"), "", 405),
        (Method::GET, format!("{registry}/services/none"), "", 404),
        (Method::GET, format!("{registry}/nothing"), "", 404),
        (Method::POST, format!("{log}/log"), "", 400),
        (Method::POST, format!("{log}/log"), &huge, 413),
        (Method::DELETE, format!("{log}/log"), "", 405),
        (Method::GET, format!("{log}/nothing"), "", 404),
        (Method::DELETE, format!("{visit}/visit"), "", 405),
        (Method::GET, format!("{visit}/nothing"), "", 404),
        (Method::GET, format!("{gateway}/none/x"), "", 404),
        (Method::GET, format!("{gateway}/"), "", 404),
    ];
    for (method, url, body, status) in cases {
        let what = format!("{method} {url} {:.40}", body);
        let reply = platform.http.request(method, url).body(body.to_owned()).send().await.unwrap();
        assert_eq!(reply.status().as_u16(), status, "{what}");
        let headers = reply.headers().clone();
        assert_eq!(headers["content-type"], "application/problem+json", "{what}");
        assert_eq!(headers.contains_key("allow"), status == 405, "{what}");
        let problem: BTreeMap<String, serde_json::Value> = reply.json().await.unwrap();
        assert_eq!(problem["status"], status, "{what}");
        assert!(ProblemType::ALL.iter().any(|cause| problem["type"] == cause.urn()), "{what}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{what}");
    }
    assert_eq!(platform.visit_count().await, 1, "bad input has no side effects");
}

/// Clients that visit through the gateway, four at a time, until they are stopped.
struct VisitLoad {
    done: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    callers: JoinSet<()>,
}

impl VisitLoad {
    fn start(platform: &Platform) -> Self {
        let (done, failed, stop) = (Arc::default(), Arc::default(), Arc::<AtomicBool>::default());
        let mut callers = JoinSet::new();
        for _ in 0..4 {
            let (done, failed, stop): (Arc<AtomicUsize>, Arc<AtomicUsize>, _) =
                (Arc::clone(&done), Arc::clone(&failed), stop.clone());
            let request = platform.http.get(format!("{}/visit", platform.gateway.url()));
            callers.spawn(async move {
                while !stop.load(Relaxed) {
                    let reply = request.try_clone().unwrap().send().await;
                    if !reply.as_ref().is_ok_and(|reply| reply.status().is_success()) {
                        failed.fetch_add(1, Relaxed);
                        if failed.load(Relaxed) < 5 {
                            eprintln!("a visit failed: {reply:?}");
                        }
                    }
                    done.fetch_add(1, Relaxed);
                }
            });
        }
        Self { done, failed, stop, callers }
    }

    /// Waits for `more` visits.
    async fn at_least(&self, more: usize) {
        let until = self.done.load(Relaxed) + more;
        eventually("more visits", || async { self.done.load(Relaxed) >= until }).await;
    }

    /// Stops the clients; returns how many visits have failed.
    async fn stop(self) -> usize {
        self.stop.store(true, Relaxed);
        self.callers.join_all().await;
        self.failed.load(Relaxed)
    }
}
