use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use crate::platform::{DEADLINE, Platform, command, eventually, ran, signal};

async fn visit(platform: &Platform, times: usize) {
    for _ in 0..times {
        let reply = platform.http.get(format!("{}/visit", platform.gateway())).send().await.unwrap();
        assert!(reply.status().is_success());
    }
}

async fn log(platform: &Platform, replica: usize, text: &str) {
    let url = format!("http://{}/log", platform.addrs.logs[replica].0);
    assert_eq!(platform.http.post(url).body(text.to_owned()).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn entries_of_all_instances_are_one_stream_by_time() {
    let platform = Platform::start(&[]).await;
    for n in 1..=30 {
        log(&platform, n % 3, &format!("entry {n}")).await;
    }
    visit(&platform, 1).await;
    let all = platform.hub(&["logs", "--since", "10m", "--json"]).await;
    assert_eq!((all.code, all.stderr.as_str()), (Some(0), ""), "{all:?}");
    let lines: Vec<Value> = all.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: Vec<_> = lines.iter().map(|line| line["msg"].as_str().unwrap().to_owned()).collect();
    let mut expected: Vec<_> = (1..=30).map(|n| format!("entry {n}")).collect();
    expected.push("visit 1".to_owned());
    assert_eq!(texts, expected);
    let times: Vec<_> = lines.iter().map(|line| line["ts"].as_str().unwrap()).collect();
    assert!(times.is_sorted());

    for (args, expected) in [
        (&["-n", "2"][..], &["entry 30", "visit 1"][..]),
        (&["-n", "0"], &[]),
        (&["--grep", "entry (7|9)$"], &["entry 7", "entry 9"]),
        (&["--source", "visit"], &["visit 1"]),
        (&["--since", "10m", "-n", "1"], &["visit 1"]),
        (&["--trace", "4bf92f3577b34da6a3ce929d0e0e4736"], &[]),
    ] {
        let ran = platform.hub(&[&["logs"], args].concat()).await;
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{args:?}: {ran:?}");
        let texts: Vec<_> = ran.stdout.lines().map(|line| line.split_once(": ").unwrap().1).collect();
        assert_eq!(texts, expected, "{args:?}");
    }

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut through = command(&["logs", "--gateway", &platform.gateway()]);
    through.env("HUB_REGISTRY__URL", format!("http://{free}"));
    let through = ran(through).await;
    assert_eq!((through.code, through.stdout.lines().count()), (Some(0), 31), "{through:?}");
}

#[tokio::test]
async fn the_entries_of_one_trace_are_found() {
    let platform = Platform::start(&[]).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let url = format!("http://{}/log", platform.addrs.logs[1].0);
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let reply = platform.http.post(&url).header("traceparent", parent).body("traced").send().await.unwrap();
    assert_eq!(reply.status(), 200);
    log(&platform, 1, "not traced").await;
    let ran = platform.hub(&["logs", "--trace", trace]).await;
    assert!(ran.stdout.ends_with(": traced\n") && ran.stdout.lines().count() == 1, "{ran:?}");
}

#[tokio::test]
async fn what_cannot_be_asked_is_one_line_and_exit_code_1() {
    let platform = Platform::start(&[]).await;
    for (args, says) in [
        (&["--grep", "("][..], "regex"),
        (&["--level", "loud"], "level"),
        (&["--gateway", "http://127.0.0.1:9"], "no gateway answers"),
    ] {
        let ran = platform.hub(&[&["logs"], args].concat()).await;
        assert_eq!((ran.code, ran.stderr.lines().count()), (Some(1), 1), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(says), "{args:?}: {ran:?}");
    }
}

#[tokio::test]
async fn following_goes_on_with_what_comes_on_every_instance_once() {
    let platform = Platform::start(&[]).await;
    log(&platform, 0, "before").await;
    let mut command = platform.command(&["logs", "-f", "--grep", "before|after"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || timeout(DEADLINE, lines.next_line()).await.expect("no line").unwrap().unwrap();
    assert!(next().await.ends_with(": before"));
    let mut expected = Vec::new();
    for n in 1..=30 {
        log(&platform, n % 3, &format!("after {n}")).await;
        log(&platform, n % 3, "not wanted").await;
        expected.push(format!("after {n}"));
    }
    let mut got = Vec::new();
    while got.len() < 30 {
        got.push(next().await.split_once(": ").unwrap().1.to_owned());
    }
    assert_eq!(got, expected, "by time, over three instances");

    // One that joins is followed too.
    let third = hubspoke_chassis::Config {
        common: {
            let mut common = hubspoke_chassis::config::Common::of(&hubspoke_log::PROCESS).unwrap();
            common.listen = "127.0.0.1:0".parse().unwrap();
            common.registry.url = platform.registry();
            common
        },
        own: {
            let mut own = hubspoke_log::LogConfig::default();
            own.file = platform.addrs.logs[0].1.with_file_name("new.log");
            own
        },
    };
    let server = hubspoke_log::Server::bind(third).await.unwrap();
    let addr = server.local_addr();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));
    eventually("it has registered", || async {
        platform.catalog().await.services["log"].iter().any(|instance| instance.info.addr == addr.to_string())
    })
    .await;
    let url = format!("http://{addr}/log");
    let reply = platform.http.post(url).body("after it joined").send().await.unwrap();
    assert_eq!(reply.status(), 200);
    assert!(next().await.ends_with(": after it joined"));
    drop(stop);
    timeout(DEADLINE, running).await.unwrap().unwrap().unwrap();
    log(&platform, 2, "after it left").await;
    assert!(next().await.ends_with(": after it left"));
    signal(&child, "INT");
    assert_eq!(timeout(DEADLINE, child.wait()).await.unwrap().unwrap().code(), Some(0));
}
