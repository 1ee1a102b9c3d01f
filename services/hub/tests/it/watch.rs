use hubspoke_protocol::{CatalogView, ServiceInfo};
use hubspoke_testkit::{ClosedPort, DEADLINE, eventually, process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::platform::{TestPlatform, command};
use crate::pty::Pty;

/// A command whose output is read line by line.
struct WatchProcess {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl WatchProcess {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line that contains `text`.
    async fn line(&mut self, text: &str) -> String {
        timeout(DEADLINE, async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("the command has ended");
                if line.contains(text) {
                    return line;
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no line with {text:?}"))
    }

    async fn interrupt(mut self) -> Option<i32> {
        process::signal(&self.child, "INT").await;
        timeout(DEADLINE, self.child.wait()).await.unwrap().unwrap().code()
    }
}

#[tokio::test]
async fn once_prints_the_catalogue_and_exits() {
    let platform = TestPlatform::start(&[]).await;
    let table = platform.hub(&["watch", "--once"]).await;
    assert_eq!(table.code, Some(0), "{table:?}");
    assert_eq!(table.stdout.lines().filter(|line| line.starts_with("log ")).count(), 3, "{table:?}");
    let json = platform.hub(&["watch", "--once", "--json"]).await;
    let view: CatalogView = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(view.services["log"].len(), 3);
    let mut command = command(&["watch", "--once"]);
    let closed = ClosedPort::new();
    command.env("HUB_REGISTRY__URL", closed.url());
    let failed = process::run(command).await;
    assert_eq!(failed.code, Some(1));
    assert!(failed.stderr.starts_with("hub: no registry answers at"), "{failed:?}");
    // Of several registries, one is enough.
    let several = format!("{},{}", closed.url(), platform.registry());
    let table = platform.hub(&["watch", "--once", "--registry", &several]).await;
    assert_eq!((table.code, table.stdout.contains("log ")), (Some(0), true), "{table:?}");
    let mut watch = WatchProcess::start(platform.command(&["watch", "--registry", &several]));
    watch.line("log").await;
    assert_eq!(watch.interrupt().await, Some(0));
}

#[tokio::test]
async fn without_a_terminal_each_change_is_a_line() {
    let platform = TestPlatform::start(&[]).await;
    let mut watch = WatchProcess::start(platform.command(&["watch"]));
    let log = platform.addrs.logs[0].0.to_string();
    let line = watch.line(&log).await;
    assert!(line.contains(" log/log-") && line.ends_with(&format!(" passing at {log}")), "{line}");
    assert_eq!(platform.hub(&["drain", &format!("log/{log}")]).await.code, Some(0));
    assert!(watch.line("draining").await.contains(" log/log-"));
    assert_eq!(platform.hub(&["undrain", &format!("log/{log}")]).await.code, Some(0));
    watch.line("no longer draining").await;
    let ghost = r#"{"Name":"ghost","Addr":"127.0.0.1:9"}"#;
    platform.http.post(format!("{}/services", platform.registry())).body(ghost).send().await.unwrap();
    let id = ServiceInfo::new("ghost", "127.0.0.1:9").instance_id().into_owned();
    watch.line(&format!("ghost/{id} registered")).await;
    // Nothing listens there, so its heartbeats fail.
    watch.line(&format!("ghost/{id} suspect")).await;
    watch.line(&format!("ghost/{id} removed")).await;
    assert_eq!(watch.interrupt().await, Some(0));
}

#[tokio::test]
async fn with_json_each_event_is_a_line() {
    let platform = TestPlatform::start(&[]).await;
    let mut watch = WatchProcess::start(platform.command(&["watch", "--json"]));
    let first: Value = serde_json::from_str(&watch.line("").await).unwrap();
    assert_eq!(first["event"], "snapshot");
    assert_eq!(first["data"]["Services"]["log"].as_array().unwrap().len(), 3);
    let load: Value = serde_json::from_str(&watch.line("\"event\":\"load\"").await).unwrap();
    assert!(load["data"]["Services"].as_object().is_some());
    assert_eq!(watch.interrupt().await, Some(0));
}

#[tokio::test]
async fn a_registry_that_starts_later_is_found() {
    let closed = ClosedPort::new();
    let mut late = command(&["watch"]);
    late.env("HUB_REGISTRY__URL", closed.url());
    let mut watch = WatchProcess::start(late);
    watch.line(&format!("registry {} is unreachable: connection refused; retrying", closed.url())).await;
    let platform = TestPlatform::start(&[("HUB_LISTEN", &closed.addr().to_string())]).await;
    watch.line("visit/visit-").await;
    watch.line("is reachable again").await;
    drop(platform);
    watch.line("is unreachable").await;
    assert_eq!(watch.interrupt().await, Some(0));
}

#[tokio::test]
async fn the_screen_follows_keys_and_changes_and_restores_the_terminal() {
    let platform = TestPlatform::start(&[]).await;
    let mut pty = Pty::start(platform.command(&["watch"]), 100, 30);
    pty.shows(&["live", "gateway (1)", "log (3)", "visit (1)", "q quit"]).await;
    // A share takes two heartbeats with requests in between.
    eventually("shares are shown", async || {
        platform.http.get(format!("{}/visit", platform.gateway())).send().await.unwrap();
        let screen = pty.screen();
        screen.contains("100.0 %") && (screen.contains('┊') || screen.contains('▓'))
    })
    .await;
    pty.press("/visit\r");
    pty.shows(&["filter: visit"]).await;
    assert!(!pty.screen().contains("log (3)"), "{}", pty.screen());
    pty.press("d");
    pty.shows(&["drain visit/visit-", "? y/n"]).await;
    pty.press("y");
    pty.shows(&["is draining", "draining"]).await;
    pty.press("\r");
    pty.shows(&["History of visit/visit-", "registered"]).await;
    pty.press("\x1b");
    pty.shows(&["Events (UTC)"]).await;
    pty.resize(140, 40).await;
    pty.shows(&["ADDRESS", &platform.addrs.visits[0].to_string()]).await;
    pty.press("q");
    assert_eq!(pty.exit_code().await, Some(0));
}

#[tokio::test]
async fn the_help_and_the_history_fit_on_a_small_screen() {
    let platform = TestPlatform::start(&[]).await;
    let mut pty = Pty::start(platform.command(&["watch"]), 60, 24);
    pty.shows(&["live", "Events (UTC)", " visit/visit-", " registered"]).await;
    pty.press("?");
    pty.shows(&[
        "│ FLAPS      how often it failed and came back ",
        "│ SHARE      of its service's requests in the last minute; │",
    ])
    .await;
    pty.press("qq"); // the first closes the help
    assert_eq!(pty.exit_code().await, Some(0));
}

#[tokio::test]
async fn the_screen_shows_an_unreachable_registry_and_ends_by_signal_or_ctrl_c() {
    for (key, by_signal) in [("\x03", None), ("", Some("TERM")), ("", Some("INT"))] {
        let platform = TestPlatform::start(&[]).await;
        let mut pty = Pty::start(platform.command(&["watch"]), 80, 24);
        pty.shows(&["live", "log (3)"]).await;
        drop(platform);
        pty.shows(&["STALE: registry unreachable", "log (3)", "registry unreachable: "]).await;
        match by_signal {
            Some(name) => process::signal(&pty.child, name).await,
            None => pty.press(key),
        }
        assert_eq!(pty.exit_code().await, Some(0), "{key:?} {by_signal:?}");
    }
}
