use std::collections::BTreeSet;
use std::time::Duration;

use hubspoke_testkit::process::{self, Exit};
use hubspoke_testkit::{ClosedPort, DEADLINE, eventually};
use serde_json::Value;

use crate::platform::TestPlatform;
use crate::pty::Pty;

fn report(exit: &Exit) -> Value {
    serde_json::from_str(&exit.stdout).unwrap_or_else(|error| panic!("{error}: {exit:?}"))
}

#[tokio::test]
async fn the_report_agrees_with_the_log_files() {
    let platform = TestPlatform::start(&[("HUB_HUB__VISIT_REPLICAS", "2")]).await;
    let exit = platform.hub(&["demo", "--rate", "300", "--duration", "1s", "--json"]).await;
    assert_eq!((exit.code, exit.stderr.as_str()), (Some(0), ""), "{exit:?}");
    let report = report(&exit);
    assert_eq!((&report["visits"], &report["planned"]), (&300.into(), &300.into()));
    assert_eq!(report["failures"], serde_json::json!({}));
    let counts = report["logged_by"].as_object().unwrap();
    assert_eq!(counts.len(), 3, "{report}");
    let mut entries = BTreeSet::new();
    for (addr, file) in &platform.addrs.logs {
        let id = platform.instance("log", &addr.to_string()).await.info.id().to_owned();
        let text = std::fs::read_to_string(file).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        // More, if an instance wrote an entry too late for its sender, which then retried with another one.
        assert!(counts[&id].as_u64().unwrap() <= lines.len() as u64, "{report}");
        entries.extend(lines.iter().map(|line| (line["source_id"].to_string(), line["msg"].to_string())));
    }
    assert_eq!(entries.len(), 300);
    let logged: u64 = counts.values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(logged, 300);
    assert_eq!(report["chi_squared"]["degrees"], 2);
    assert!(report["chi_squared"]["p"].as_f64().unwrap() > 1e-6, "{report}");
    let served: u64 = report["served_by"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!((served, report["served_by"].as_object().unwrap().len()), (300, 2));
    let latency = |name: &str| report["latency_ms"][name].as_f64().unwrap();
    assert!(0.1 < latency("p50") && latency("p50") <= latency("p99") && latency("p99") <= latency("max"));

    let table = platform.hub(&["demo", "--rate", "20", "--duration", "100ms"]).await;
    assert!(table.stdout.starts_with("2 visits in 0."), "{table:?}");
    for expected in ["LOG INSTANCE", "chi-squared", "latency in ms: p50"] {
        assert!(table.stdout.contains(expected), "{table:?}");
    }
}

#[tokio::test]
async fn failed_visits_are_reported_and_make_exit_code_1() {
    let platform = TestPlatform::start(&[]).await;
    let visit = format!("visit/{}", platform.addrs.visits[0]);
    assert_eq!(platform.hub(&["drain", &visit]).await.code, Some(0));
    eventually("the gateway has no visit instance", async || {
        let reply = platform.http.get(format!("{}/visit", platform.gateway())).send().await.unwrap();
        reply.status() == 503
    })
    .await;
    let exit = platform.hub(&["demo", "--rate", "50", "--duration", "200ms"]).await;
    assert_eq!(exit.code, Some(1));
    assert_eq!(exit.stderr, "hub: 10 of 10 visits failed\n");
    assert!(exit.stdout.contains("10 failed\n  10 × 503 Service Unavailable: "), "{exit:?}");

    let gateway = ClosedPort::new();
    let exit =
        platform.hub(&["demo", "--rate", "50", "--duration", "100ms", "--gateway", &gateway.url()]).await;
    assert_eq!(exit.code, Some(1));
    assert!(exit.stdout.contains("5 × can't connect: connection refused"), "{exit:?}");
}

#[tokio::test]
async fn no_registry_is_needed() {
    let platform = TestPlatform::start(&[]).await;
    let closed = ClosedPort::new();
    let mut command =
        platform.command(&["demo", "--rate", "50", "--duration", "200ms", "--gateway", &platform.gateway()]);
    command.env("HUB_REGISTRY__URL", closed.url());
    let exit = process::run(command).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.stdout.starts_with("10 visits in"), "{exit:?}");
    assert!(
        exit.stdout.contains("the registry can't be reached, so instances that got nothing are not shown"),
        "{exit:?}"
    );
}

#[tokio::test]
async fn a_progress_bar_gives_way_to_the_report() {
    let platform = TestPlatform::start(&[]).await;
    let pty = Pty::start(platform.command(&["demo", "--rate", "50", "--duration", "1s"]), 100, 30);
    pty.shows(&["█", "░ ", "/50, "]).await;
    pty.shows(&["50 visits in", "LOG INSTANCE"]).await;
    assert!(!pty.screen().contains("/50, "), "{}", pty.screen());
    assert_eq!(pty.exit_code().await, Some(0));
}

#[tokio::test]
async fn ctrl_c_ends_a_run_with_a_report() {
    let platform = TestPlatform::start(&[]).await;
    let mut command = platform.command(&["demo", "--rate", "50", "--duration", "1h", "--json"]);
    let child = command.spawn().unwrap();
    eventually("visits arrive", async || {
        let url = format!("{}/visit/stats", platform.gateway());
        let stats: Value = platform.http.get(url).send().await.unwrap().json().await.unwrap();
        stats["total"].as_u64().unwrap() >= 5
    })
    .await;
    process::signal(&child, "INT").await;
    let exit = process::wait(child).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let report = report(&exit);
    let visits = report["visits"].as_u64().unwrap();
    assert!((5..180_000).contains(&visits), "{report}");
    assert_eq!(report["planned"], 180_000);
    assert!(Duration::from_secs_f64(report["seconds"].as_f64().unwrap()) < DEADLINE);
}
