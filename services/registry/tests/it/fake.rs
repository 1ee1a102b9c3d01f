//! A member that answers heartbeats and pushes as a test tells it to, and remembers the pushes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use hubspoke_protocol::{HUB_INSTANCE, HUB_REVISION, PushMode, Revision, ServiceInfo};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::registry::Registry;

/// How to answer.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Ok,
    Body(String),
    As(&'static str),
    Status(u16),
    After(Duration),
    Megabyte,
    Redirect,
    Hang,
}

/// One push.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    pub(crate) method: Method,
    pub(crate) revision: Revision,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Value,
    /// Whether it was acknowledged.
    pub(crate) accepted: bool,
}

#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) addr: String,
    state: Arc<Mutex<Inner>>,
    _task: Arc<Server>,
}

struct Inner {
    heartbeat: Answer,
    push: Answer,
    pushes: Vec<Push>,
    heartbeats: Vec<Revision>,
}

struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        Self::on("127.0.0.1:0").await
    }

    pub(crate) async fn on(addr: &str) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let inner = Inner { heartbeat: Answer::Ok, push: Answer::Ok, pushes: vec![], heartbeats: vec![] };
        let state = Arc::new(Mutex::new(inner));
        let addr = listener.local_addr().unwrap().to_string();
        let app = Router::new().fallback(answer).with_state(state.clone());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { addr, state, _task: Arc::new(Server(task)) }
    }

    pub(crate) fn info(&self, name: &str, required: &[&str]) -> ServiceInfo {
        let required_services = required.iter().map(|&name| name.to_owned()).collect();
        ServiceInfo { required_services, ..ServiceInfo::new(name, &self.addr) }
    }

    pub(crate) fn snapshot_info(&self, name: &str, required: &[&str]) -> ServiceInfo {
        let (push, push_key) = (Some(PushMode::Snapshot), Some("push-key".to_owned()));
        ServiceInfo { push, push_key, ..self.info(name, required) }
    }

    pub(crate) fn on_heartbeat(&self, answer: Answer) {
        self.state.lock().unwrap().heartbeat = answer;
    }

    pub(crate) fn on_push(&self, answer: Answer) {
        self.state.lock().unwrap().push = answer;
    }

    /// The pushes that it was sent, those that it refused included.
    pub(crate) fn pushes(&self) -> Vec<Push> {
        self.state.lock().unwrap().pushes.clone()
    }

    /// Method and address of each push in event mode.
    pub(crate) fn events(&self) -> Vec<(String, String)> {
        let text = |push: &Push| (push.method.to_string(), push.body["Addr"].as_str().unwrap().to_owned());
        self.pushes().iter().map(text).collect()
    }

    /// The addresses in the newest list that it acknowledged.
    pub(crate) fn newest(&self, name: &str) -> Option<Vec<String>> {
        let pushes = self.pushes();
        let mut accepted = pushes.iter().rev().filter(|push| push.accepted);
        let list = accepted.find_map(|push| push.body["Services"].get(name))?.as_array().unwrap();
        Some(list.iter().map(|info| info["Addr"].as_str().unwrap().to_owned()).collect())
    }

    /// The revisions that its heartbeats carried.
    pub(crate) fn heartbeats(&self) -> Vec<Revision> {
        self.state.lock().unwrap().heartbeats.clone()
    }
}

async fn answer(
    State(state): State<Arc<Mutex<Inner>>>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let revision = headers[HUB_REVISION].to_str().unwrap().parse().unwrap();
    let answer = {
        let mut inner = state.lock().unwrap();
        if method == Method::GET {
            inner.heartbeats.push(revision);
            inner.heartbeat.clone()
        } else {
            let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
            let body = serde_json::from_slice(&body).unwrap();
            let accepted = !matches!(inner.push, Answer::Status(_) | Answer::Hang);
            inner.pushes.push(Push { method, revision, authorization, body, accepted });
            inner.push.clone()
        }
    };
    match answer {
        Answer::Ok => StatusCode::OK.into_response(),
        Answer::Body(body) => body.into_response(),
        Answer::As(id) => [(HUB_INSTANCE, id)].into_response(),
        Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Answer::After(time) => {
            tokio::time::sleep(time).await;
            StatusCode::OK.into_response()
        }
        Answer::Megabyte => vec![b'x'; 1 << 20].into_response(),
        Answer::Redirect => (StatusCode::FOUND, [("location", "http://127.0.0.1:1/")]).into_response(),
        Answer::Hang => std::future::pending().await,
    }
}

/// So many members of the service `log` that have registered and then all fail.
pub(crate) async fn failing(registry: &Registry, count: usize) -> Vec<Fake> {
    let mut logs = Vec::new();
    for _ in 0..count {
        let log = Fake::start().await;
        registry.register(&log.info("log", &[])).await;
        logs.push(log);
    }
    for log in &logs {
        log.on_heartbeat(Answer::Status(500));
    }
    logs
}
