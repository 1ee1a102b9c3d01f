//! The example service as a real process, between a registry and a log instance that are not real.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::{any, post};
use tokio::net::{TcpListener, TcpSocket};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// The example's binary, which `cargo test` builds beside this test's.
pub(crate) fn greeter() -> Command {
    let test = std::env::current_exe().unwrap();
    let binary: PathBuf = test.ancestors().nth(2).unwrap().join("examples/greeter");
    assert!(binary.exists(), "run all tests of the package, so that cargo builds its examples");
    let mut command = Command::new(binary);
    command.env_clear().current_dir(std::env::temp_dir()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// One server that is both: a registry which knows one log instance, itself, and that log instance.
pub(crate) struct RegistryAndLog {
    pub(crate) url: String,
    /// Methods of calls to the registry, and entries.
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
    /// The trace context of each entry.
    pub(crate) traces: Arc<Mutex<Vec<String>>>,
}

impl RegistryAndLog {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let traces: Arc<Mutex<Vec<String>>> = Arc::default();
        let (calls, entries, contexts) = (seen.clone(), seen.clone(), traces.clone());
        let app = Router::new()
            .route(
                "/services",
                any(move |method: axum::http::Method| async move {
                    calls.lock().unwrap().push(method.to_string());
                    format!(r#"{{"log":[{{"Name":"log","Addr":"{addr}","Id":"log-1"}}]}}"#)
                }),
            )
            .route(
                "/log",
                post(move |headers: HeaderMap, entry: String| async move {
                    entries.lock().unwrap().push(entry);
                    let context = headers.get("traceparent").map(|value| value.to_str().unwrap().to_owned());
                    contexts.lock().unwrap().push(context.unwrap_or_default());
                }),
            );
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url: format!("http://{addr}"), seen, traces }
    }
}

/// A greeter that runs and is healthy.
pub(crate) struct Greeter {
    pub(crate) url: String,
    child: Child,
    /// Bound as well, never listening: so nobody else is given the port before the greeter has it.
    _port: TcpSocket,
}

impl Greeter {
    pub(crate) async fn start(registry: &str, vars: &[(&str, &str)]) -> Self {
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseaddr(true).unwrap();
        port.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let free = port.local_addr().unwrap().to_string();
        let mut all = vec![("HUB_REGISTRY__URL", registry), ("HUB_LISTEN", free.as_str())];
        all.extend(vars);
        let child = greeter().envs(all.iter().copied()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while run(&["healthcheck"], &all[..2]).await.0 != Some(0) {
            assert!(Instant::now() < deadline, "never healthy");
            sleep(Duration::from_millis(20)).await;
        }
        Self { url: format!("http://{free}"), child, _port: port }
    }

    /// Sends SIGTERM and waits: the exit code and what it wrote to stderr.
    pub(crate) async fn terminate(self) -> (Option<i32>, String) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let (code, _, stderr) = exit(self.child).await;
        (code, stderr)
    }
}

async fn exit(child: Child) -> (Option<i32>, String, String) {
    let output = tokio::time::timeout(Duration::from_secs(20), child.wait_with_output()).await;
    let output = output.expect("it does not end").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Runs a greeter to its end: exit code, stdout, stderr.
pub(crate) async fn run(args: &[&str], vars: &[(&str, &str)]) -> (Option<i32>, String, String) {
    exit(greeter().args(args).envs(vars.iter().copied()).spawn().unwrap()).await
}
