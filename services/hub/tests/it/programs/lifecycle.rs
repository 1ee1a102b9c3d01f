use std::time::Duration;

use hubspoke_protocol::ReasonKind;
use hubspoke_testkit::{eventually, process};

use super::program::with_program;
use super::running::{Running, has_instances, instances, last_reasons};
use crate::platform::{TestPlatform, command};

#[tokio::test]
async fn a_program_is_found_through_the_gateway_and_stopped_in_order() {
    let platform = TestPlatform::start(&[]).await;
    let run = Running::start(&platform, &["--name", "shop", "--needs", "log"], "serve");
    has_instances(&platform, "shop", 1).await;
    run.prints("hub: shop is reachable at").await;
    run.prints("listening on 127.0.0.1:").await;
    let url = format!("{}/shop/", platform.gateway());
    let mut answer = String::new();
    eventually("the gateway routes to it", async || {
        let response = platform.http.get(&url).send().await.unwrap();
        let passed = response.status().is_success();
        answer = response.text().await.unwrap();
        passed
    })
    .await;
    let instance = instances(&platform, "shop").await.remove(0);
    assert_eq!(answer, instance.info.id());
    assert_ne!(instance.info.control_addr(), instance.info.addr);
    assert_eq!(instance.load, None, "the load of a program is unknown");
    run.signal("TERM").await;
    let exit = run.end().await;
    assert_eq!(exit.code, Some(0), "{}", exit.stdout);
    assert!(exit.stdout.contains("hub: shop stopped after"), "{}", exit.stdout);
    assert!(instances(&platform, "shop").await.is_empty());
    let reasons = last_reasons(&platform, "shop").await;
    let reasons: Vec<_> = reasons.iter().map(|reason| (reason.kind, reason.detail.as_str())).collect();
    assert_eq!(reasons, [(ReasonKind::Deregistered, "")]);
}

#[tokio::test]
async fn an_exit_is_reported_with_its_code_here_and_in_the_log() {
    let platform = TestPlatform::start(&[]).await;
    let exit = Running::start(&platform, &["--name", "broken"], "fail").end().await;
    assert_eq!(exit.code, Some(3));
    assert!(exit.stdout.contains("ERROR:app:it broke"), "{}", exit.stdout);
    assert!(exit.stdout.contains("hub: broken exited with code 3 after"), "{}", exit.stdout);
    let logs = platform.hub(&["logs", "--source", "broken", "--json"]).await.stdout;
    let line = logs.lines().find(|line| line.contains("it broke")).unwrap_or_else(|| panic!("{logs}"));
    assert!(line.contains("\"level\":\"error\"") && line.contains("\"stream\":\"stderr\""), "{line}");
    assert!(logs.contains("exited with code 3") && logs.contains("\"exit_code\":3"), "{logs}");
    // A command that can't be run, as in a shell.
    let exit = platform.hub(&["run", "--name", "none", "--", "/no/such/program"]).await;
    assert_eq!(exit.code, Some(127), "{exit:?}");
    assert!(exit.stderr.contains("hub: can't run /no/such/program: No such file"), "{exit:?}");
}

#[tokio::test]
async fn a_program_that_fails_is_restarted() {
    let platform = TestPlatform::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let mut command = platform.command(&["run", "--name", "again", "--restart", "on-failure"]);
    command.env("PROGRAM_FILE", dir.path().join("started"));
    with_program(&mut command, "second-time", "again");
    let run = Running::spawn(command, "again".to_owned());
    has_instances(&platform, "again", 1).await;
    assert!(run.printed().contains("hub: again exited with code 1"), "{}", run.printed());
    assert!(run.printed().contains("hub: again restarts in 0.5 s"), "{}", run.printed());
    let instance = instances(&platform, "again").await.remove(0);
    assert_eq!(instance.info.meta.get("run.restarts").map(String::as_str), Some("1"));
}

#[tokio::test]
async fn exits_and_restarts_are_in_the_catalogues_history() {
    let platform = TestPlatform::start(&[]).await;
    let run = Running::start(&platform, &["--name", "flaky", "--restart", "on-failure"], "serve");
    let mut ended = Vec::new();
    for expected in ["exited with code 3 after ", ", restarted once before"] {
        let mut addr = String::new();
        eventually("a new instance", async || {
            let running = instances(&platform, "flaky").await;
            addr = running.first().map(|instance| instance.info.addr.clone()).unwrap_or_default();
            !addr.is_empty() && !ended.contains(&addr)
        })
        .await;
        let _ = platform.http.get(format!("http://{addr}/exit")).send().await; // it ends instead of answering
        ended.push(addr);
        eventually(&format!("{expected:?} is in its history"), async || {
            last_reasons(&platform, "flaky").await.iter().any(|reason| {
                reason.kind == ReasonKind::Deregistered
                    && reason.detail.starts_with("exited with code 3 after ")
                    && reason.detail.contains(expected)
            })
        })
        .await;
    }
    let status = platform.hub(&["status", "flaky"]).await.stdout;
    assert!(status.contains("deregistered: exited with code 3 after "), "{status}");
    has_instances(&platform, "flaky", 1).await;
    run.signal("TERM").await;
    assert_eq!(run.end().await.code, Some(0));

    let mut run = Running::start(&platform, &["--name", "orphan"], "serve");
    has_instances(&platform, "orphan", 1).await;
    run.child.start_kill().unwrap();
    eventually("the supervisor reports why", async || {
        let reasons = last_reasons(&platform, "orphan").await;
        reasons.iter().any(|reason| reason.detail == "the hub process that ran it has ended unexpectedly")
    })
    .await;
}

#[tokio::test]
async fn a_program_that_goes_to_the_background_stays_a_member() {
    let platform = TestPlatform::start(&[]).await;
    let run = Running::start(&platform, &["--name", "daemon"], "daemon");
    has_instances(&platform, "daemon", 1).await;
    run.signal("TERM").await;
    let mark = run.processes();
    assert!(!mark.is_empty());
    let exit = run.end().await;
    assert_eq!(exit.code, Some(0), "{}", exit.stdout);
    assert!(instances(&platform, "daemon").await.is_empty());
    assert!(
        mark.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}/exe")).exists()),
        "nothing is left"
    );
}

#[tokio::test]
async fn what_ignores_sigterm_is_killed_with_its_children_after_the_grace() {
    let platform = TestPlatform::start(&[]).await;
    let run = Running::start(&platform, &["--name", "stubborn", "--grace", "300ms"], "stubborn");
    has_instances(&platform, "stubborn", 1).await;
    run.signal("INT").await;
    let mark = run.processes();
    let exit = run.end().await;
    assert_eq!(
        exit.code,
        Some(0),
        "the program itself ends with the signal that it was sent: {}",
        exit.stdout
    );
    assert!(
        mark.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}/exe")).exists()),
        "nothing is left"
    );
}

#[tokio::test]
async fn without_a_log_service_or_a_registry_a_program_is_not_held_up() {
    let mut command = command(&["run", "--name", "chatty", "--ready", "none"]);
    command.env("HUB_REGISTRY__URL", "http://127.0.0.1:9");
    with_program(&mut command, "chatty", "chatty");
    let started = std::time::Instant::now();
    let exit = process::run(command).await;
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.stdout.lines().count() > 20_000, "the terminal has every line");
    assert!(exit.stderr.contains("lines of its output did not reach the log service"), "{}", exit.stderr);
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_program_gets_its_surroundings_but_not_the_registrys_token() {
    let platform = TestPlatform::start(&[]).await;
    let mut command =
        platform.command(&["run", "--name", "env", "--ready", "none", "--needs", "log,user-db"]);
    command.args(["--port-env", "HTTP_PORT"]).env("HUB_REGISTRY__TOKEN", "secret");
    with_program(&mut command, "environment", "environment");
    let exit = process::run(command).await;
    let var = |name: &str| {
        let line = exit.stdout.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("{name}: {exit:?}")).to_owned()
    };
    assert_eq!(var("HTTP_PORT"), var("PORT"));
    assert_eq!(var("HOST"), "127.0.0.1");
    assert_eq!(var("HUB_GATEWAY_URL"), platform.gateway());
    assert_eq!(var("HUB_URL_USER_DB"), format!("{}/user-db", platform.gateway()));
    assert_eq!(var("OTEL_SERVICE_NAME"), "env");
    assert!(var("HUB_INSTANCE").starts_with("env-"));
    assert!(!exit.stdout.contains("secret"));
}
