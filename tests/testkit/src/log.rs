//! A log instance whose answers the test sets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use hubspoke_protocol::{LOG_PATH, ServiceInfo};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use crate::server::TestServer;

/// A request that a [`FakeLog`] received.
#[derive(Debug, Clone)]
pub struct LogRequest {
    /// `text/plain; charset=utf-8`, or `application/x-ndjson` for a batch.
    pub content_type: String,
    /// The `Idempotency-Key`.
    pub key: Option<String>,
    /// The trace context.
    pub traceparent: Option<String>,
    /// The body.
    pub body: String,
    /// When it came.
    pub at: Instant,
    /// What it was answered with.
    pub status: u16,
}

/// A stand-in for an instance of the log service: takes `POST /log`, records what it is sent and answers 200 with
/// `{}`. Clones share everything.
///
/// ```
/// use hubspoke_testkit::{FakeLog, FakeRegistry, RawConn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let log = FakeLog::start().await;
/// let registry = FakeRegistry::start().await;
/// registry.set("log", &[log.info()]);
/// // A member under test finds the log instance in the registry's answer, and then:
/// let entry = "POST /log HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";
/// let mut conn = RawConn::connect(log.info().addr).await;
/// conn.write(entry).await;
/// conn.response().await;
/// assert_eq!(log.texts(), ["hello"]);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FakeLog {
    state: Arc<Mutex<Behavior>>,
    server: Arc<TestServer>,
}

#[derive(Debug, Default)]
struct Behavior {
    requests: Vec<LogRequest>,
    /// What to answer before answering as usual.
    next: VecDeque<u16>,
    always: Option<u16>,
    delay: Duration,
    refuses_batches: bool,
    checks: bool,
}

impl FakeLog {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        let state = Arc::<Mutex<Behavior>>::default();
        let routes = Router::new().route(LOG_PATH, post(answer)).with_state(state.clone());
        Self { state, server: Arc::new(TestServer::start(routes).await) }
    }

    /// What it would register: the core protocol, so clients send one entry per request.
    pub fn info(&self) -> ServiceInfo {
        ServiceInfo::new("log", self.server.addr.to_string())
    }

    /// The same, and it takes batches.
    pub fn batch_info(&self) -> ServiceInfo {
        let meta = [("log.batch".to_owned(), "ndjson".to_owned())].into();
        ServiceInfo { meta, ..self.info() }
    }

    /// Answers the next requests with these statuses.
    pub fn answer_next(&self, statuses: impl IntoIterator<Item = u16>) {
        self.state.lock().next.extend(statuses);
    }

    /// Answers every request with this status; `None`: with 200 again.
    pub fn answer_always(&self, status: Option<u16>) {
        self.state.lock().always = status;
    }

    /// Answers after this time.
    pub fn delay(&self, delay: Duration) {
        self.state.lock().delay = delay;
    }

    /// Answers 413 to batches of more than one entry.
    pub fn refuse_batches(&self) {
        self.state.lock().refuses_batches = true;
    }

    /// Refuses the entries that contain `"bad"`, and names only the first of them, as a log instance does if
    /// there are many.
    pub fn refuse_bad_entries(&self) {
        self.state.lock().checks = true;
    }

    /// All requests so far, also those that were refused.
    pub fn requests(&self) -> Vec<LogRequest> {
        self.state.lock().requests.clone()
    }

    /// The texts of all entries so far, also of those that were refused.
    pub fn texts(&self) -> Vec<String> {
        self.requests().iter().flat_map(LogRequest::texts).collect()
    }

    /// The texts of the entries in requests that were answered with 200.
    pub fn accepted(&self) -> Vec<String> {
        self.requests().iter().filter(|request| request.status == 200).flat_map(LogRequest::texts).collect()
    }
}

impl LogRequest {
    /// The texts of its entries.
    pub fn texts(&self) -> Vec<String> {
        if self.content_type != "application/x-ndjson" {
            return vec![self.body.clone()];
        }
        let text = |line| serde_json::from_str::<Value>(line).unwrap()["msg"].as_str().unwrap().to_owned();
        self.body.lines().map(text).collect()
    }
}

async fn answer(
    State(state): State<Arc<Mutex<Behavior>>>,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, String) {
    let delay = state.lock().delay;
    tokio::time::sleep(delay).await;
    let mut state = state.lock();
    let lines: Vec<&str> = body.lines().collect();
    let mut status = state.next.pop_front().or(state.always).unwrap_or(200);
    if state.refuses_batches && lines.len() > 1 {
        status = 413;
    }
    let bad = (1..).zip(&lines).filter(|(_, line)| line.contains("\"bad\""));
    let bad: Vec<usize> = bad.map(|(number, _)| number).collect();
    let mut reply = "{}".to_owned();
    if state.checks
        && let Some(line) = bad.first()
    {
        status = if bad.len() == lines.len() { 400 } else { 200 };
        reply = format!(r#"{{"failed":[{{"line":{line},"status":422}}],"failed_count":{}}}"#, bad.len());
    }
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let request = LogRequest {
        content_type: text("content-type").unwrap_or_default(),
        key: text("idempotency-key"),
        traceparent: text("traceparent"),
        body,
        at: Instant::now(),
        status,
    };
    state.requests.push(request);
    (StatusCode::from_u16(status).unwrap(), reply)
}
