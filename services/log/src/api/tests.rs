//! The handlers without a server: on disks that fail, and with more followers than a test has file
//! descriptors.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use hubspoke_client::{Directory, HttpClient, HttpOptions};
use hubspoke_testkit::eventually;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message as _;
use tokio::sync::{Semaphore, watch};

use super::admission::QueryAdmission;
use super::body::BodyBudget;
use super::*;
use crate::ingest::IngestLimits;
use crate::store::faulty::{Fault, FaultScript};
use crate::store::{Store, StoreOptions};

struct Fixture {
    app: Arc<LogApp>,
    script: Arc<FaultScript>,
    _dir: tempfile::TempDir,
    _open: watch::Sender<bool>,
}

fn fixture(queue_bytes: usize) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let script = Arc::new(FaultScript::default());
    let options = StoreOptions { queue_bytes, ..StoreOptions::new(dir.path().join("services.log")) };
    let (open, closing) = watch::channel(false);
    let readers = Arc::new(Semaphore::new(64 << 20));
    let app = Arc::new(LogApp {
        access: Arc::default(),
        anonymous_writes: false,
        store: Arc::new(Store::open_with(options, "log-1", script.disks()).unwrap()),
        limits: IngestLimits { max_entry: 100_000, max_entries: 100, max_encoded: 400_000 },
        bodies: BodyBudget::new(1 << 20),
        max_batch: 200_000,
        name: "log".into(),
        id: "log-1".into(),
        directory: Directory::default(),
        http: HttpClient::new(&[], None, HttpOptions::new(Duration::from_secs(1))).unwrap(),
        queries: QueryAdmission::new(8, Arc::clone(&readers)),
        readers,
        max_query_time: Duration::from_secs(30),
        parsers: Arc::new(Semaphore::new(2)),
        pattern_turns: Arc::new(Semaphore::new(1)),
        pattern_tails: Arc::new(Semaphore::new(1)),
        long_events: Arc::new(Semaphore::new(1 << 20)),
        max_stall: Duration::from_secs(90),
        closing,
    });
    Fixture { app, script, _dir: dir, _open: open }
}

async fn post(app: &Arc<LogApp>, text: &str) -> Response {
    let request =
        Request::post("/log").header(header::HOST, "localhost").body(Body::from(text.to_owned())).unwrap();
    append::append(State(Arc::clone(app)), request).await.into_response()
}

/// Status, `Retry-After` and detail.
async fn problem_of(reply: Response) -> (u16, Option<String>, String) {
    let after = reply.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
    let status = reply.status().as_u16();
    let body = to_bytes(reply.into_body(), 1 << 20).await.unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    (status, after, problem["detail"].as_str().unwrap_or_default().to_owned())
}

fn problem(status: u16, after: &str, detail: &str) -> (u16, Option<String>, String) {
    (status, Some(after.to_owned()), detail.to_owned())
}

#[tokio::test]
async fn disk_trouble_is_reported_by_status_and_retry_after() {
    let Fixture { app, script, .. } = &fixture(1 << 20);
    script.next([Fault::Full]);
    assert_eq!(problem_of(post(app, "x").await).await, problem(507, "10", "the disk is full"));
    script.next([Fault::Fail]);
    assert_eq!(problem_of(post(app, "x").await).await, problem(503, "10", "can't write to the disk"));
    let log_records = vec![LogRecord { event_name: "x".to_owned(), ..LogRecord::default() }];
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let logs = ResourceLogs { scope_logs, ..ResourceLogs::default() };
    let body = ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec();
    let export = Request::post("/v1/logs").header(header::HOST, "localhost");
    let export = export.header(header::CONTENT_TYPE, "application/x-protobuf");
    script.next([Fault::Full]);
    let reply = otlp::export(State(Arc::clone(app)), export.body(Body::from(body)).unwrap()).await;
    // OpenTelemetry's exporters don't retry after 507.
    assert_eq!(problem_of(reply.into_response()).await, problem(503, "10", "the disk is full"));
    assert_eq!(post(app, "x").await.status(), StatusCode::OK);
    app.store.close();
    assert_eq!(problem_of(post(app, "x").await).await, problem(503, "1", "the log is shutting down"));
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_stores_what_it_has() {
    let Fixture { app, script, .. } = &fixture(100_000);
    script.hangs.store(true, Ordering::Relaxed);
    let text = "x".repeat(40_000);
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            tokio::spawn({
                let (app, text) = (app.clone(), text.clone());
                async move { post(&app, &text).await.status() }
            })
        })
        .collect();
    eventually("both are queued", async || app.store.queued_bytes() >= 80_000).await;
    let full = problem(503, "1", "the write queue is full");
    assert_eq!(problem_of(post(app, &text).await).await, full);
    script.hangs.store(false, Ordering::Relaxed);
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), StatusCode::OK);
    }
    assert_eq!(*app.store.last_seq().borrow(), 2, "what was refused is not stored");
}

#[tokio::test]
async fn a_thousand_followers_get_every_entry_in_order() {
    const ENTRIES: u64 = 200;
    let Fixture { app, .. } = &fixture(1 << 20);
    let mut followers = tokio::task::JoinSet::new();
    for n in 0..1_000 {
        let query = RawQuery((n % 2 == 0).then(|| "contains=even".to_owned()));
        let reply = tail::tail(State(Arc::clone(app)), None, HeaderMap::new(), query).await.unwrap();
        followers.spawn(async move {
            let step = if n % 2 == 0 { 2 } else { 1 };
            let mut body = reply.into_body().into_data_stream();
            let mut seen = 0;
            while seen < ENTRIES {
                let piece = String::from_utf8(body.next().await.unwrap().unwrap().to_vec()).unwrap();
                for id in piece.lines().filter_map(|line| line.strip_prefix("id: log-1:")) {
                    assert_eq!(id.parse::<u64>().unwrap(), seen + step);
                    seen += step;
                }
                assert!(!piece.contains("dropped"), "{piece}");
            }
        });
    }
    assert_eq!(app.store.followers(), 1_000);
    for seq in 1..=ENTRIES {
        let text = if seq % 2 == 0 { "even" } else { "odd" };
        assert_eq!(post(app, text).await.status(), StatusCode::OK);
    }
    tokio::time::timeout(Duration::from_secs(20), followers.join_all()).await.expect("not all came");
    assert_eq!(app.store.followers(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_large_body_that_takes_too_long_is_refused() {
    let Fixture { app, .. } = &fixture(1 << 20);
    // A byte a second.
    let drip = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Ok::<_, std::io::Error>("x"), ()))
    });
    let request =
        Request::post("/log").header(header::HOST, "localhost").header(header::CONTENT_LENGTH, 90_000);
    let request = request.body(Body::from_stream(drip)).unwrap();
    let began = tokio::time::Instant::now();
    let reply = append::append(State(Arc::clone(app)), request).await.into_response();
    assert_eq!((reply.status(), began.elapsed().as_secs()), (StatusCode::BAD_REQUEST, 60));
    let large = "x".repeat(90_000);
    assert_eq!(post(app, &large).await.status(), StatusCode::OK);
}
