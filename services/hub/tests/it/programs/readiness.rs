use std::net::TcpListener;

use hubspoke_protocol::InstanceState;
use hubspoke_testkit::eventually;

use super::program::with_program;
use super::running::{Running, has_instances, instances};
use crate::platform::TestPlatform;

#[tokio::test]
async fn a_program_that_listens_elsewhere_gets_advice_and_is_not_killed() {
    let platform = TestPlatform::start(&[]).await;
    let run = Running::start(&platform, &["--name", "lost", "--ready-timeout", "500ms"], "elsewhere");
    run.prints("hub: lost is not ready after 0.50 s: it listens on 127.0.0.1:").await;
    run.prints("--port-env").await;
    run.prints("    listening on 127.0.0.1:").await;
    assert!(instances(&platform, "lost").await.is_empty());
    assert!(!run.processes().is_empty());
    run.signal("TERM").await;
    assert_eq!(run.end().await.code, Some(0));
}

#[tokio::test]
async fn a_program_on_the_other_loopback_address_is_found() {
    if TcpListener::bind("[::1]:0").is_err() {
        return; // no IPv6 here
    }
    let platform = TestPlatform::start(&[]).await;
    let _run = Running::start(&platform, &["--name", "six"], "v6");
    has_instances(&platform, "six", 1).await;
    assert!(instances(&platform, "six").await[0].info.addr.starts_with("[::1]:"));
}

#[tokio::test]
async fn a_host_that_another_service_has_is_reported() {
    let platform = TestPlatform::start(&[]).await;
    let args = |name| ["--name", name, "--route-host", "www.shop.example"];
    let first = Running::start(&platform, &args("first"), "serve");
    has_instances(&platform, "first", 1).await;
    let second = Running::start(&platform, &args("second"), "serve");
    second.prints("www.shop.example: service first has it").await;
    has_instances(&platform, "second", 1).await;
    assert!(!first.printed().contains("www.shop.example"), "{}", first.printed());
}

#[tokio::test]
async fn a_fixed_port_that_is_in_use_is_reported_at_once() {
    let platform = TestPlatform::start(&[]).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let exit = Running::start(&platform, &["--name", "taken", "--port", &port], "serve").end().await;
    assert_eq!(exit.code, Some(1));
    let expected = format!("hub: taken can't start: port {port} is in use by another program");
    assert!(exit.stdout.contains(&expected), "{}", exit.stdout);
}

#[tokio::test]
async fn readiness_is_a_path_or_a_line_of_output_too() {
    let platform = TestPlatform::start(&[]).await;
    let _path = Running::start(&platform, &["--name", "path", "--ready", "path:/up"], "serve");
    let _line =
        Running::start(&platform, &["--name", "line", "--ready", r"output:listening on .*:\d+"], "serve");
    let never = Running::start(
        &platform,
        &["--name", "never", "--ready", "output:ready to go", "--ready-timeout", "200ms"],
        "serve",
    );
    has_instances(&platform, "path", 1).await;
    has_instances(&platform, "line", 1).await;
    never.prints("no line of its output matches \"ready to go\"").await;
    assert!(instances(&platform, "never").await.is_empty());
}

/// A check that fails costs a program its requests, never its life.
#[tokio::test]
async fn a_program_that_fails_its_check_is_drained_and_serves_again() {
    let platform = TestPlatform::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let ill = dir.path().join("ill");
    let mut command = platform.command(&["run", "--name", "sick", "--ready", "path:/up"]);
    command.env("PROGRAM_FILE", &ill);
    with_program(&mut command, "serve", "sick");
    let run = Running::spawn(command, "sick".to_owned());
    has_instances(&platform, "sick", 1).await;
    let id = instances(&platform, "sick").await[0].info.id.clone();
    let in_state = async |state: InstanceState| {
        eventually(&state.to_string(), async || {
            instances(&platform, "sick").await.iter().any(|instance| instance.state == state)
        })
        .await;
    };
    std::fs::write(&ill, "").unwrap();
    in_state(InstanceState::Draining).await;
    run.prints("hub: sick does not answer its check: it answers 500").await;
    std::fs::remove_file(&ill).unwrap();
    in_state(InstanceState::Passing).await;
    run.prints("hub: sick answers again").await;
    assert_eq!(instances(&platform, "sick").await[0].info.id, id, "it is the same start");
    run.signal("TERM").await;
    assert_eq!(run.end().await.code, Some(0));
}

#[tokio::test]
async fn a_program_is_registered_soon_after_it_listens() {
    let platform = TestPlatform::start(&[]).await;
    let run = Running::start(&platform, &["--name", "soon"], "serve");
    run.prints("listening on").await;
    let listening = std::time::Instant::now();
    eventually("registered", async || !instances(&platform, "soon").await.is_empty()).await;
    // 200 ms on a quiet machine; the tests may run beside others.
    assert!(listening.elapsed().as_secs() < 2, "{:?}", listening.elapsed());
}
