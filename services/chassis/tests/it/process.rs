//! `boot`: arguments, variables, signals, exit codes.

use std::time::Duration;

use hubspoke_chassis::ProblemType;
use hubspoke_protocol::ServiceInfo;
use hubspoke_testkit::{ClosedPort, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::greeter::{Greeter, OwnProgram, Platform, run};

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
    let greeter = Greeter::start_with_file_limit(&platform, "-S 40").await;
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
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let exit = run(&[], &[("HUB_LISTEN", &taken)]).await;
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert_eq!(
        exit.stderr,
        format!(
            "greeter: can't listen on {taken} (listen): the port is in use; is another greeter running? Stop it, or \
             choose another port with HUB_LISTEN\n"
        )
    );
}

/// In a container its threads count against the limit of the service, on a machine with any number of cores.
#[tokio::test]
async fn a_healthcheck_has_one_thread() {
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = service.local_addr().unwrap().to_string();
    let program = OwnProgram::new();
    let check = program.command().arg("healthcheck").env("HUB_LISTEN", addr).spawn().unwrap();
    let (mut conn, _) = service.accept().await.unwrap();
    assert!(conn.read(&mut [0; 1024]).await.unwrap() > 0, "the request");
    let status = std::fs::read_to_string(format!("/proc/{}/status", check.id().unwrap())).unwrap();
    let threads = status.lines().find(|line| line.starts_with("Threads:")).unwrap();
    assert_eq!(threads.split_whitespace().last(), Some("1"));
    conn.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(check.wait_with_output().await.unwrap().status.success());
}

#[tokio::test]
async fn a_closed_terminal_stops_the_service_as_sigterm_does() {
    for signal in ["HUP", "QUIT", "INT"] {
        let platform = Platform::start().await;
        let exit = Greeter::start(&platform, &[]).await.stop_with(signal).await;
        assert_eq!(exit.code, Some(0), "{signal}: {}", exit.stderr);
        assert_eq!(platform.registry.methods(), ["POST", "DELETE"], "{signal}");
    }
}

#[tokio::test]
async fn under_nohup_a_closed_terminal_stops_nothing() {
    let platform = Platform::start().await;
    let mut greeter = Greeter::start_without_hangup(&platform).await;
    greeter.signal("HUP").await;
    assert!(greeter.keeps_running_for(Duration::from_millis(300)).await);
    assert_eq!(greeter.terminate().await.code, Some(0));
}

/// The health check gets neither the arguments nor the ports of the process.
#[tokio::test]
async fn a_healthcheck_asks_the_process_that_runs() {
    let (platform, program) = (Platform::start().await, OwnProgram::new());
    let registry = platform.registry.url();
    let start = |file: &str| program.command().args(["--config", file]).spawn().unwrap();
    assert_eq!(program.healthcheck(&[]).await.code, Some(1), "none runs");
    let one = program.config(
        "one.toml",
        &format!("listen = '127.0.0.1:0'\ncontrol_listen = '127.0.0.1:0'\nregistry.url = '{registry}'\n"),
    );
    let running = start(&one);
    eventually("ready", async || program.healthcheck(&[]).await.code == Some(0)).await;
    // A second one that can't register: not ready, and neither are both together.
    let closed = ClosedPort::new();
    let free = ClosedPort::new();
    let two = program
        .config("two.toml", &format!("listen = '{}'\nregistry.url = '{}'\n", free.addr(), closed.url()));
    drop(free);
    let waiting = start(&two);
    eventually("not ready", async || {
        let exit = program.healthcheck(&["--config", &two]).await;
        exit.code == Some(1) && exit.stderr.contains("not registered yet")
    })
    .await;
    let both = program.healthcheck(&[]).await;
    assert!(both.code == Some(1) && both.stderr.contains("not registered yet"), "{}", both.stderr);
    drop(waiting);
    eventually("alone again", async || program.healthcheck(&[]).await.code == Some(0)).await;
    drop(running);
}

#[tokio::test]
async fn a_variable_that_is_ignored_is_a_warning() {
    let platform = Platform::start().await;
    let greeter = Greeter::start(
        &platform,
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
            ("OTEL_PROPAGATORS", "tracecontext,baggage,b3"),
            ("OTEL_TRACES_SAMPLER", "xray"),
        ],
    )
    .await;
    let exit = greeter.terminate().await;
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    for text in ["OTEL_PROPAGATORS: \\\"b3\\\" is ignored", "OTEL_TRACES_SAMPLER: \\\"xray\\\" is ignored"] {
        assert_eq!(exit.stderr.matches(text).count(), 1, "{text}: {}", exit.stderr);
    }
}
