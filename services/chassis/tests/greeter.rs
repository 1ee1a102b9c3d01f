//! The example service as a real process: what `boot` does with arguments, variables and signals.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should say where"
)]

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::{any, post};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// The example's binary, which `cargo test` builds beside this test's.
fn greeter() -> Command {
    let test = std::env::current_exe().unwrap();
    let binary: PathBuf = test.ancestors().nth(2).unwrap().join("examples/greeter");
    assert!(binary.exists(), "run all tests of the package, so that cargo builds its examples");
    let mut command = Command::new(binary);
    command.env_clear().current_dir(std::env::temp_dir()).kill_on_drop(true);
    command
}

/// One server that is both: a registry which knows one log instance, itself, and that log instance.
async fn registry_and_log() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (calls, entries) = (seen.clone(), seen.clone());
    let app = Router::new()
        .route(
            "/services",
            any(move |method: axum::http::Method| async move {
                calls.lock().unwrap().push(method.to_string());
                format!(r#"{{"log":[{{"Name":"log","Addr":"{addr}"}}]}}"#)
            }),
        )
        .route("/log", post(move |entry: String| async move { entries.lock().unwrap().push(entry) }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{addr}"), seen)
}

async fn exit(child: Child) -> (Option<i32>, String, String) {
    let output = tokio::time::timeout(Duration::from_secs(20), child.wait_with_output()).await;
    let output = output.expect("it does not end").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

async fn run(args: &[&str], vars: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = greeter();
    command.args(args).envs(vars.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    exit(command.spawn().unwrap()).await
}

#[tokio::test]
async fn a_service_of_twenty_lines_greets_logs_and_leaves_in_order() {
    let (registry, seen) = registry_and_log().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let vars = [("HUB_REGISTRY__URL", registry.as_str()), ("HUB_LISTEN", free.as_str())];
    let child = greeter().envs(vars).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while run(&["healthcheck"], &vars).await.0 != Some(0) {
        assert!(Instant::now() < deadline, "never healthy");
        sleep(Duration::from_millis(20)).await;
    }
    let reply = reqwest::get(format!("http://{free}/greeter/ada")).await.unwrap();
    assert_eq!(reply.text().await.unwrap(), "hello, ada\n");
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let (code, _, stderr) = exit(child).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(*seen.lock().unwrap(), ["POST", "greeted ada", "DELETE"]);
    for line in stderr.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON where stderr is no terminal");
        assert_ne!(event["level"], "ERROR", "{line}");
        assert_ne!(event["level"], "WARN", "{line}");
    }
}

#[tokio::test]
async fn arguments_and_exit_codes() {
    let (code, version, _) = run(&["--version"], &[]).await;
    assert_eq!((code, version.as_str()), (Some(0), "greeter 0.1.0\n"));
    let (code, shown, _) = run(&["--check-config"], &[("HUB_NAME", "hello")]).await;
    assert_eq!(code, Some(0));
    assert!(shown.contains("name = \"hello\"") && shown.contains("# HUB_NAME"), "{shown}");
    let (code, _, stderr) = run(&[], &[("HUB_NAMES", "hello")]).await;
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.starts_with("greeter: configuration: HUB_NAMES: unknown key"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
    let (code, _, stderr) = run(&["healthcheck"], &[("HUB_LISTEN", "127.0.0.1:9")]).await;
    assert_eq!(code, Some(1), "{stderr}");
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let (code, _, stderr) = run(&[], &[("HUB_LISTEN", &taken)]).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(
        stderr,
        format!("greeter: can't listen on {taken} (listen): Address already in use (os error 98)\n")
    );
}
