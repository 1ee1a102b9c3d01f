use hubspoke_testkit::{ClosedPort, DEADLINE, eventually, process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use crate::platform::{TestPlatform, command};

async fn visit(platform: &TestPlatform, times: usize) {
    for _ in 0..times {
        let reply = platform.http.get(format!("{}/visit", platform.gateway())).send().await.unwrap();
        assert!(reply.status().is_success());
    }
}

async fn log(platform: &TestPlatform, replica: usize, text: &str) {
    let url = format!("http://{}/log", platform.addrs.logs[replica].0);
    assert_eq!(platform.http.post(url).body(text.to_owned()).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn entries_of_all_instances_are_one_stream_in_order_of_time() {
    let platform = TestPlatform::start(&[]).await;
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
        let exit = platform.hub(&[&["logs"], args].concat()).await;
        assert_eq!((exit.code, exit.stderr.as_str()), (Some(0), ""), "{args:?}: {exit:?}");
        let texts: Vec<_> = exit.stdout.lines().map(|line| line.split_once(": ").unwrap().1).collect();
        assert_eq!(texts, expected, "{args:?}");
    }

    let closed = ClosedPort::new();
    let mut through = command(&["logs", "--gateway", &platform.gateway()]);
    through.env("HUB_REGISTRY__URL", closed.url());
    let through = process::run(through).await;
    assert_eq!((through.code, through.stdout.lines().count()), (Some(0), 31), "{through:?}");
}

#[tokio::test]
async fn the_entries_of_one_trace_are_found() {
    let platform = TestPlatform::start(&[]).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let url = format!("http://{}/log", platform.addrs.logs[1].0);
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let reply = platform.http.post(&url).header("traceparent", parent).body("traced").send().await.unwrap();
    assert_eq!(reply.status(), 200);
    log(&platform, 1, "not traced").await;
    let exit = platform.hub(&["logs", "--trace", trace]).await;
    assert!(exit.stdout.ends_with(": traced\n") && exit.stdout.lines().count() == 1, "{exit:?}");
}

#[tokio::test]
async fn nobodys_key_hides_an_entry_and_a_claimed_name_is_in_quotes() {
    let platform = TestPlatform::start(&[]).await;
    let log = |replica: usize| format!("http://{}/log", platform.addrs.logs[replica].0);
    let gateway = format!("{}/log", platform.gateway());
    let other_host = |host: [u8; 4]| {
        reqwest::Client::builder().no_proxy().local_address(std::net::IpAddr::from(host)).build().unwrap()
    };
    for (addr, _) in &platform.addrs.logs {
        eventually("the log instance knows the gateway", async || {
            let reply = platform.http.get(format!("http://{addr}/directory")).send().await.unwrap();
            reply.json::<Value>().await.unwrap()["Services"]["gateway"][0].is_object()
        })
        .await;
    }
    // The same key and text, from four senders: two callers of the gateway, a member, and another host.
    let posts = [
        platform.http.post(&gateway).header("Hub-Source", "visit/visit-1"),
        other_host([127, 0, 0, 2]).post(&gateway),
        platform.http.post(log(0)).header("Hub-Source", "cart/cart-1"),
        other_host([127, 0, 0, 3]).post(log(1) + "?source=visit"),
    ];
    let mut sent = 0;
    for post in posts {
        // A retry to any instance is the same entry.
        for _ in 0..4 {
            let post = post.try_clone().unwrap().header("Idempotency-Key", "1");
            assert_eq!(post.body("hello").send().await.unwrap().status(), 200);
        }
        sent += 1;
    }
    let exit = platform.hub(&["logs", "--since", "10m", "--grep", "^hello$"]).await;
    assert_eq!((exit.code, exit.stderr.as_str()), (Some(0), ""), "{exit:?}");
    let mut senders: Vec<_> = exit.stdout.lines().map(|line| line.splitn(3, ' ').nth(2).unwrap()).collect();
    senders.sort_unstable();
    let expected = ["127.0.0.1: hello", "127.0.0.2: hello", "127.0.0.3 \"visit\": hello", "cart: hello"];
    assert_eq!((senders, sent), (expected.to_vec(), 4));
    for (args, expected) in
        [(["--source", "visit"], ""), (["--claimed", "visit"], "127.0.0.3 \"visit\": hello\n")]
    {
        let exit = platform.hub(&[&["logs"][..], &args].concat()).await;
        assert!(exit.code == Some(0) && exit.stdout.ends_with(expected), "{args:?}: {exit:?}");
        assert_eq!(exit.stdout.lines().count(), expected.lines().count());
    }
}

#[tokio::test]
async fn an_invalid_request_is_one_line_and_exit_code_1() {
    let platform = TestPlatform::start(&[]).await;
    for (args, expected) in [
        (&["--grep", "("][..], "regex"),
        (&["--level", "loud"], "level"),
        (
            &["--gateway", "http://127.0.0.1:9"],
            "can't read entries through the gateway: http://127.0.0.1:9: connection refused",
        ),
    ] {
        let exit = platform.hub(&[&["logs"], args].concat()).await;
        assert_eq!((exit.code, exit.stderr.lines().count()), (Some(1), 1), "{args:?}: {exit:?}");
        assert!(exit.stderr.contains(expected), "{args:?}: {exit:?}");
    }
}

#[tokio::test]
async fn following_prints_each_new_entry_of_every_instance_once() {
    let platform = TestPlatform::start(&[]).await;
    log(&platform, 0, "before").await;
    let mut command = platform.command(&["logs", "-f", "--grep", "before|after"]);
    let mut child = command.spawn().unwrap();
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
    assert_eq!(got, expected, "in order of time, from three instances");

    // An instance that joins is followed too.
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
    let server = hubspoke_log::LogServer::bind(third).await.unwrap();
    let addr = server.local_addr();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));
    eventually("it has registered", async || {
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
    process::signal(&child, "INT").await;
    assert_eq!(timeout(DEADLINE, child.wait()).await.unwrap().unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_platform_that_stops_is_one_line_and_one_when_it_is_back() {
    let closed = ClosedPort::new();
    let vars = [("HUB_LISTEN", closed.addr().to_string())];
    let vars: Vec<_> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let platform = TestPlatform::start(&vars).await;
    let mut child = platform.command(&["logs", "-f", "-n", "0"]).spawn().unwrap();
    let mut remarks = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut entries = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || timeout(DEADLINE, remarks.next_line()).await.expect("no line").unwrap().unwrap();
    // It follows once it prints something.
    let mut followed = async |platform: &TestPlatform| loop {
        log(platform, 0, "followed").await;
        if timeout(std::time::Duration::from_millis(500), entries.next_line()).await.is_ok() {
            break;
        }
    };
    followed(&platform).await;
    drop(platform);
    let line = next().await;
    assert!(line.starts_with("hub: can't follow ") && line.ends_with("; retrying"), "{line}");
    assert!(line.contains(" and 1 more: "), "the registry and three log instances: {line}");
    let platform = TestPlatform::start(&vars).await;
    let line = next().await;
    assert_eq!(line, format!("hub: following the registry at {} again", platform.registry()));
    followed(&platform).await;
    process::signal(&child, "INT").await;
    assert_eq!(timeout(DEADLINE, child.wait()).await.unwrap().unwrap().code(), Some(0));
    assert_eq!(remarks.next_line().await.unwrap(), None);
}

#[tokio::test]
async fn fields_and_stacks_are_printed_and_a_terminal_shows_local_times() {
    let platform = TestPlatform::start(&[]).await;
    let url = format!("http://{}/log", platform.addrs.logs[0].0);
    let entry = r#"{"msg":"it broke","user":7,"err":{"type":"Oops","stack":"Oops: no\n  at f (x.js:1)"}}"#;
    let request = platform.http.post(&url).header("content-type", "application/json").body(entry);
    assert_eq!(request.send().await.unwrap().status(), 200);
    let noise: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert_eq!(platform.http.post(&url).body(noise).send().await.unwrap().status(), 200);
    let exit = platform.hub(&["logs"]).await;
    let stack =
        ": it broke err.type=Oops user=7\n    | err.stack:\n    |   Oops: no\n    |     at f (x.js:1)\n";
    assert!(exit.stdout.contains(stack), "{}", exit.stdout);
    assert_eq!(exit.stdout.lines().count(), 5, "{}", exit.stdout);
    assert!(exit.stdout.contains(": (binary, ") && exit.stdout.len() < 1500, "{}", exit.stdout);
    let full = platform.hub(&["logs", "--full"]).await;
    assert!(full.stdout.len() > 100_000 && full.stdout.contains(stack));

    let mut command = platform.command(&["logs", "-n", "2"]);
    command.env("TZ", "Pacific/Kiritimati");
    let pty = crate::pty::Pty::start(command, 120, 30);
    pty.shows(&["times are Pacific/Kiritimati (+14, UTC+14:00)", "it broke err.type=Oops user=7"]).await;
}
