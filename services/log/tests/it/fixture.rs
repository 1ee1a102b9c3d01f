//! A log service without a registry. It serves, and keeps trying to register.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hubspoke_chassis::config::Common;
use hubspoke_chassis::{Config, ProblemType};
use hubspoke_log::store::OpenError;
use hubspoke_log::{LogConfig, LogServer, LogServerError, PROCESS};
use hubspoke_testkit::{ClosedPort, DEADLINE, eventually};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) struct Log {
    pub(crate) url: String,
    pub(crate) dir: TempDir,
    pub(crate) http: Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), LogServerError>>,
    _no_registry: ClosedPort,
}

impl Log {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config<LogConfig>)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), change).await
    }

    pub(crate) async fn start_in(dir: TempDir, change: impl FnOnce(&mut Config<LogConfig>)) -> Self {
        let no_registry = ClosedPort::new();
        let mut common = Common::of(&PROCESS).unwrap();
        common.listen = "127.0.0.1:0".parse().unwrap();
        common.registry.url = no_registry.url();
        let mut config = Config { common, own: LogConfig::default() };
        config.own.file = dir.path().join("services.log");
        change(&mut config);
        // Another test may be starting a process, which has copies of all locks until its program runs.
        let mut server = None;
        eventually("the log file is free", async || match LogServer::bind(config.clone()).await {
            Err(LogServerError::Open(OpenError::InUse(_))) => false,
            bound => server.replace(bound.unwrap()).is_none(),
        })
        .await;
        let server = server.unwrap();
        let url = format!("http://{}", server.local_addr());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.run(async move { drop(stopped.await) }));
        let http = Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
        Self { url, dir, http, stop: Some(stop), task, _no_registry: no_registry }
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url))
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.url))
    }

    /// Stores a text.
    pub(crate) async fn append(&self, text: &str) {
        let reply = self.post("/log").body(text.to_owned()).send().await.unwrap();
        assert_eq!(reply.status(), 200);
    }

    /// Posts lines of JSON.
    pub(crate) async fn append_lines(&self, lines: String) -> Response {
        self.post("/log").header("content-type", "application/x-ndjson").body(lines).send().await.unwrap()
    }

    /// Stores `count` entries of `len` bytes.
    pub(crate) async fn fill(&self, count: usize, len: usize) {
        let line = format!("\"{}\"\n", "x".repeat(len));
        for _ in 0..count / 1_000 {
            assert_eq!(self.append_lines(line.repeat(1_000)).await.status(), 200);
        }
    }

    /// The entries that a query finds.
    pub(crate) async fn find(&self, path: &str) -> Vec<Value> {
        let reply = self.get(path).send().await.unwrap();
        assert_eq!(reply.status(), 200, "{path}");
        assert_eq!(reply.headers()["content-type"], "application/x-ndjson");
        ndjson(&reply.text().await.unwrap())
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("services.log")
    }

    /// Shuts down gracefully and returns the folder.
    pub(crate) async fn stop(mut self) -> TempDir {
        drop(self.stop.take());
        timeout(DEADLINE, self.task).await.expect("it does not stop").unwrap().unwrap();
        self.dir
    }
}

pub(crate) fn ndjson(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn entries(file: &Path) -> Vec<Value> {
    ndjson(&std::fs::read_to_string(file).unwrap())
}

pub(crate) fn texts(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["msg"].as_str().unwrap()).collect()
}

/// Asserts that a reply is a problem document with this status; returns its detail.
pub(crate) async fn problem(reply: Response, status: u16) -> String {
    assert_eq!(reply.status(), status);
    assert_eq!(reply.headers()["content-type"], "application/problem+json");
    let problem: Value = reply.json().await.unwrap();
    assert_eq!(problem["status"], status);
    assert!(ProblemType::ALL.iter().any(|cause| problem["type"] == cause.urn()), "{problem}");
    problem["detail"].as_str().unwrap().to_owned()
}

/// The next chunk of a stream.
pub(crate) async fn chunk(stream: &mut Response) -> Option<bytes::Bytes> {
    timeout(Duration::from_secs(20), stream.chunk()).await.expect("nothing more comes").unwrap()
}
