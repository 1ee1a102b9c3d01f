//! The example service as a real process, between a registry and a log instance that are not real.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::{any, post};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// The example's binary, which `cargo test` builds beside this test's.
pub(crate) fn greeter() -> Command {
    piped(Command::new(binary()))
}

fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let binary = test.ancestors().nth(2).unwrap().join("examples/greeter");
    assert!(binary.exists(), "run all tests of the package, so that cargo builds its examples");
    binary
}

fn piped(mut command: Command) -> Command {
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
    /// The addresses that were registered, one for each call.
    pub(crate) registered: Arc<Mutex<Vec<String>>>,
}

impl RegistryAndLog {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let traces: Arc<Mutex<Vec<String>>> = Arc::default();
        let registered: Arc<Mutex<Vec<String>>> = Arc::default();
        let (calls, entries, contexts, addrs) =
            (seen.clone(), seen.clone(), traces.clone(), registered.clone());
        let app = Router::new()
            .route(
                "/services",
                any(move |method: axum::http::Method, body: String| async move {
                    let info: serde_json::Value = serde_json::from_str(&body).unwrap();
                    addrs.lock().unwrap().push(info["Addr"].as_str().unwrap().to_owned());
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
        Self { url: format!("http://{addr}"), seen, traces, registered }
    }
}

/// A greeter that runs and is healthy.
pub(crate) struct Greeter {
    pub(crate) url: String,
    child: Child,
}

impl Greeter {
    pub(crate) async fn start(world: &RegistryAndLog, vars: &[(&str, &str)]) -> Self {
        Self::run(greeter(), world, vars).await
    }

    /// One that may have no more open files than this, unless it asks for more.
    pub(crate) async fn start_with_few_files(world: &RegistryAndLog, files: u32) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(format!("ulimit -S -n {files} && exec \"$0\"")).arg(binary());
        Self::run(piped(shell), world, &[]).await
    }

    /// On a port of its own choice, which it tells the registry.
    async fn run(mut command: Command, world: &RegistryAndLog, vars: &[(&str, &str)]) -> Self {
        let before = world.registered.lock().unwrap().len();
        let registry = ("HUB_REGISTRY__URL", world.url.as_str());
        let child = command.envs([registry]).envs(vars.iter().copied()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let addr = loop {
            if let Some(addr) = world.registered.lock().unwrap().get(before) {
                break addr.clone();
            }
            assert!(Instant::now() < deadline, "never registered");
            sleep(Duration::from_millis(5)).await;
        };
        while run(&["healthcheck"], &[registry, ("HUB_LISTEN", &addr)]).await.0 != Some(0) {
            assert!(Instant::now() < deadline, "never healthy");
            sleep(Duration::from_millis(20)).await;
        }
        Self { url: format!("http://{addr}"), child }
    }

    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().await.unwrap().success());
    }

    /// Whether it still runs after this time.
    pub(crate) async fn goes_on_for(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.child.wait()).await.is_err()
    }

    /// Sends SIGTERM and waits: the exit code and what it wrote to stderr.
    pub(crate) async fn terminate(self) -> (Option<i32>, String) {
        self.signal("TERM").await;
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
