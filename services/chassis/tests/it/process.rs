//! `boot`: arguments, variables, signals, exit codes.

use std::time::Duration;

use hubspoke_chassis::ProblemType;
use hubspoke_protocol::ServiceInfo;
use hubspoke_testkit::ClosedPort;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::greeter::{Greeter, Platform, command, run};

#[tokio::test]
async fn the_greeter_greets_logs_and_stops_in_order() {
    let platform = Platform::start().await;
    let greeter = Greeter::start(&platform, &[]).await;
    let response = reqwest::get(format!("{}/greeter/ada", greeter.url)).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "hello, ada\n");
    let exit = greeter.terminate().await;
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(
        (platform.registry.methods(), platform.log.texts()),
        (vec!["POST".into(), "DELETE".into()], vec!["greeted ada".into()])
    );
    let (calls, entry) = (platform.registry.calls(), platform.log.requests().remove(0));
    assert!(calls[0].at < entry.at && entry.at < calls[1].at);
    for line in exit.stderr.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON, as stderr is not a terminal");
        assert_ne!(event["level"], "ERROR", "{line}");
        assert_ne!(event["level"], "WARN", "{line}");
    }
}

#[tokio::test]
async fn an_entry_that_is_not_stored_is_a_problem_and_its_causes_are_logged() {
    let (platform, closed) = (Platform::start().await, ClosedPort::new());
    platform.registry.set("log", &[ServiceInfo::new("log", closed.addr().to_string())]);
    let greeter = Greeter::start(&platform, &[]).await;
    let response = reqwest::get(format!("{}/greeter/ada", greeter.url)).await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.text().await.unwrap().contains(ProblemType::NotLogged.urn()));
    let stderr = greeter.terminate().await.stderr;
    let line = stderr.lines().find(|line| line.contains("can't send a log entry")).expect(&stderr);
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    let error = event["error"].as_str().unwrap();
    assert!(error.starts_with("no log instance") && error.contains("Connection refused"), "{line}");
}

#[tokio::test]
async fn an_unread_stderr_blocks_no_request() {
    let platform = Platform::start().await;
    let greeter = Greeter::start(&platform, &[("HUB_TELEMETRY__LOG", "trace")]).await;
    // Several lines per request, into a pipe that holds 64 KiB.
    for _ in 0..500 {
        let greeting = reqwest::get(format!("{}/greeter/ada", greeter.url));
        let response = timeout(Duration::from_secs(10), greeting).await.expect("an answer").unwrap();
        assert!(response.status().is_success());
    }
    let exit = greeter.terminate().await;
    assert_eq!(exit.code, Some(0));
    assert!(exit.stderr.len() > 200_000, "the pipe was never full: {} bytes", exit.stderr.len());
}

#[tokio::test]
async fn silent_connections_leave_files_for_requests() {
    let platform = Platform::start().await;
    let greeter = Greeter::start_with_file_limit(&platform, 40).await;
    let addr = greeter.url.strip_prefix("http://").unwrap();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(addr).await.unwrap());
    }
    let greeting = reqwest::get(format!("{}/greeter/ada", greeter.url));
    let response = timeout(Duration::from_secs(10), greeting).await.expect("an answer").unwrap();
    assert!(response.status().is_success());
}

#[tokio::test]
async fn arguments_and_exit_codes() {
    let exit = run(&["--version"], &[]).await;
    assert_eq!((exit.code, exit.stdout.as_str()), (Some(0), "greeter 0.1.0\n"));
    let exit = run(&["--check-config"], &[("HUB_NAME", "hello")]).await;
    assert_eq!(exit.code, Some(0));
    assert!(
        exit.stdout.contains("name = \"hello\"") && exit.stdout.contains("# HUB_NAME"),
        "{}",
        exit.stdout
    );
    let exit = run(&[], &[("HUB_NAMES", "hello")]).await;
    assert_eq!(exit.code, Some(78), "{}", exit.stderr);
    assert!(exit.stderr.starts_with("greeter: configuration: HUB_NAMES: unknown key"), "{}", exit.stderr);
    assert_eq!(exit.stderr.lines().count(), 1);
    for args in [&[][..], &["--check-config"]] {
        let exit = run(args, &[("HUB_REGISTRY__TOKEN_FILE", "/none/token")]).await;
        assert_eq!(exit.code, Some(78), "{}", exit.stderr);
        assert_eq!(
            exit.stderr,
            "greeter: configuration: registry.token_file /none/token: No such file or directory (os error 2)\n"
        );
    }
    let exit = run(&["healthcheck"], &[("HUB_LISTEN", "127.0.0.1:9")]).await;
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let exit = run(&[], &[("HUB_LISTEN", &taken)]).await;
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert_eq!(
        exit.stderr,
        format!("greeter: can't listen on {taken} (listen): Address already in use (os error 98)\n")
    );
}

/// In a container its threads count against the limit of the service, on a machine with any number of cores.
#[tokio::test]
async fn a_healthcheck_has_one_thread() {
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = service.local_addr().unwrap().to_string();
    let check = command().arg("healthcheck").env("HUB_LISTEN", addr).spawn().unwrap();
    let (mut conn, _) = service.accept().await.unwrap();
    assert!(conn.read(&mut [0; 1024]).await.unwrap() > 0, "the request");
    let status = std::fs::read_to_string(format!("/proc/{}/status", check.id().unwrap())).unwrap();
    let threads = status.lines().find(|line| line.starts_with("Threads:")).unwrap();
    assert_eq!(threads.split_whitespace().last(), Some("1"));
    conn.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(check.wait_with_output().await.unwrap().status.success());
}
