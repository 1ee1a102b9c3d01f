//! The example service as a real process: what `boot` does with arguments, variables and signals.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should say where"
)]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use self::process::{Greeter, RegistryAndLog, greeter, run};

#[path = "support/process.rs"]
#[allow(dead_code, reason = "shared with the test of telemetry")]
mod process;

#[tokio::test]
async fn a_service_of_twenty_lines_greets_logs_and_leaves_in_order() {
    let world = RegistryAndLog::start().await;
    let greeter = Greeter::start(&world, &[]).await;
    let reply = reqwest::get(format!("{}/greeter/ada", greeter.url)).await.unwrap();
    assert_eq!(reply.text().await.unwrap(), "hello, ada\n");
    let (code, stderr) = greeter.terminate().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(*world.seen.lock().unwrap(), ["POST", "greeted ada", "DELETE"]);
    for line in stderr.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON where stderr is no terminal");
        assert_ne!(event["level"], "ERROR", "{line}");
        assert_ne!(event["level"], "WARN", "{line}");
    }
}

#[tokio::test]
async fn a_stderr_that_nobody_reads_stops_no_request() {
    let world = RegistryAndLog::start().await;
    let greeter = Greeter::start(&world, &[("HUB_TELEMETRY__LOG", "trace")]).await;
    // Several lines each, into a pipe that holds 64 KiB.
    for _ in 0..500 {
        let greeting = reqwest::get(format!("{}/greeter/ada", greeter.url));
        let greeting = tokio::time::timeout(std::time::Duration::from_secs(10), greeting).await;
        assert!(greeting.expect("an answer").unwrap().status().is_success());
    }
    let (code, stderr) = greeter.terminate().await;
    assert_eq!(code, Some(0));
    assert!(stderr.len() > 200_000, "this has shown nothing: {} bytes", stderr.len());
}

#[tokio::test]
async fn many_silent_connections_take_no_file_that_a_request_needs() {
    let world = RegistryAndLog::start().await;
    let greeter = Greeter::start_with_few_files(&world, 40).await;
    let addr = greeter.url.strip_prefix("http://").unwrap();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(tokio::net::TcpStream::connect(addr).await.unwrap());
    }
    let greeting = reqwest::get(format!("{}/greeter/ada", greeter.url));
    let greeting = tokio::time::timeout(std::time::Duration::from_secs(10), greeting).await;
    assert!(greeting.expect("an answer").unwrap().status().is_success());
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
    for args in [&[][..], &["--check-config"]] {
        let (code, _, stderr) = run(args, &[("HUB_REGISTRY__TOKEN_FILE", "/none/token")]).await;
        assert_eq!(code, Some(78), "{stderr}");
        let says = "greeter: configuration: registry.token_file /none/token: No such file or directory (os error 2)\n";
        assert_eq!(stderr, says);
    }
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

/// In a container it counts against the same limit as the service, on a machine with any number of cores.
#[tokio::test]
async fn a_health_check_is_a_single_thread() {
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = service.local_addr().unwrap().to_string();
    let check = greeter().arg("healthcheck").env("HUB_LISTEN", addr).spawn().unwrap();
    let (mut asking, _) = service.accept().await.unwrap();
    assert!(asking.read(&mut [0; 1024]).await.unwrap() > 0, "the question");
    let status = std::fs::read_to_string(format!("/proc/{}/status", check.id().unwrap())).unwrap();
    let threads = status.lines().find(|line| line.starts_with("Threads:")).unwrap();
    assert_eq!(threads.split_whitespace().last(), Some("1"));
    asking.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(check.wait_with_output().await.unwrap().status.success());
}
