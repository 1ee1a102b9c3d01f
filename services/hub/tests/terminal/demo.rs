use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use crate::platform::{DEADLINE, Nobody, Platform, Ran, eventually, ran, signal};
use crate::pty::Pty;

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

#[tokio::test]
async fn every_visit_is_counted_for_the_log_instance_that_has_its_entry() {
    let platform = Platform::start(&[("HUB_HUB__VISIT_REPLICAS", "2")]).await;
    let ran = platform.hub(&["demo", "--rate", "300", "--duration", "1s", "--json"]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    let report = json(&ran);
    assert_eq!((&report["visits"], &report["planned"]), (&300.into(), &300.into()));
    assert_eq!(report["failures"], serde_json::json!({}));
    // What it says of each log instance is what stands in that instance's file.
    let counts = report["logged_by"].as_object().unwrap();
    assert_eq!(counts.len(), 3, "{report}");
    let mut entries = BTreeSet::new();
    for (addr, file) in &platform.addrs.logs {
        let id = platform.instance("log", &addr.to_string()).await.info.id().to_owned();
        let text = std::fs::read_to_string(file).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        // More where an instance wrote an entry too late for its sender, which then turned to another one.
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
    for says in ["LOG INSTANCE", "chi-squared", "latency in ms: p50"] {
        assert!(table.stdout.contains(says), "{table:?}");
    }
}

#[tokio::test]
async fn failed_visits_are_told_and_make_the_exit_code_1() {
    let platform = Platform::start(&[]).await;
    let visit = format!("visit/{}", platform.addrs.visits[0]);
    assert_eq!(platform.hub(&["drain", &visit]).await.code, Some(0));
    eventually("the gateway has nowhere to send visits", || async {
        let reply = platform.http.get(format!("{}/visit", platform.gateway())).send().await.unwrap();
        reply.status() == 503
    })
    .await;
    let ran = platform.hub(&["demo", "--rate", "50", "--duration", "200ms"]).await;
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.stderr, "hub: 10 of 10 visits failed\n");
    assert!(ran.stdout.contains("10 failed\n  10 × 503 Service Unavailable: "), "{ran:?}");

    let nobody = Nobody::new();
    let gateway = nobody.url();
    let ran = platform.hub(&["demo", "--rate", "50", "--duration", "100ms", "--gateway", &gateway]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.contains("5 × can't connect: Connection refused"), "{ran:?}");
}

#[tokio::test]
async fn the_gateway_is_enough() {
    let platform = Platform::start(&[]).await;
    let nobody = Nobody::new();
    let mut command =
        platform.command(&["demo", "--rate", "50", "--duration", "200ms", "--gateway", &platform.gateway()]);
    command.env("HUB_REGISTRY__URL", nobody.url());
    let ran = ran(command).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.starts_with("10 visits in"), "{ran:?}");
    assert!(
        ran.stdout.contains("no registry answers, so an instance that got nothing is not shown"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn a_bar_shows_how_far_it_is_and_makes_room_for_the_result() {
    let platform = Platform::start(&[]).await;
    let pty = Pty::start(platform.command(&["demo", "--rate", "50", "--duration", "1s"]), 100, 30);
    pty.shows(&["█", "░ ", "/50, "]).await;
    pty.shows(&["50 visits in", "LOG INSTANCE"]).await;
    assert!(!pty.screen().contains("/50, "), "{}", pty.screen());
    assert_eq!(pty.ended().await, Some(0));
}

#[tokio::test]
async fn ctrl_c_ends_it_with_the_result_so_far() {
    let platform = Platform::start(&[]).await;
    let mut command = platform.command(&["demo", "--rate", "50", "--duration", "1h", "--json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("visits arrive", || async {
        let url = format!("{}/visit/stats", platform.gateway());
        let stats: Value = platform.http.get(url).send().await.unwrap().json().await.unwrap();
        stats["total"].as_u64().unwrap() >= 5
    })
    .await;
    signal(&child, "INT");
    let ran: Ran = timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap().into();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let report = json(&ran);
    let visits = report["visits"].as_u64().unwrap();
    assert!((5..180_000).contains(&visits), "{report}");
    assert_eq!(report["planned"], 180_000);
    assert!(Duration::from_secs_f64(report["seconds"].as_f64().unwrap()) < DEADLINE);
}
