use std::process::Stdio;

use hubspoke_protocol::CatalogView;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::platform::{DEADLINE, Nobody, Platform, command, eventually, ran, signal};
use crate::pty::Pty;

/// A command whose lines are read as they come.
struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line that holds this.
    async fn line(&mut self, text: &str) -> String {
        timeout(DEADLINE, async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("it has ended");
                if line.contains(text) {
                    return line;
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no line with {text:?}"))
    }

    async fn interrupt(mut self) -> Option<i32> {
        signal(&self.child, "INT");
        timeout(DEADLINE, self.child.wait()).await.unwrap().unwrap().code()
    }
}

#[tokio::test]
async fn once_prints_the_catalogue_and_ends() {
    let platform = Platform::start(&[]).await;
    let table = platform.hub(&["watch", "--once"]).await;
    assert_eq!(table.code, Some(0), "{table:?}");
    assert_eq!(table.stdout.lines().filter(|line| line.starts_with("log ")).count(), 3, "{table:?}");
    let json = platform.hub(&["watch", "--once", "--json"]).await;
    let view: CatalogView = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(view.services["log"].len(), 3);
    let mut away = command(&["watch", "--once"]);
    let nobody = Nobody::new();
    away.env("HUB_REGISTRY__URL", nobody.url());
    let away = ran(away).await;
    assert_eq!(away.code, Some(1));
    assert!(away.stderr.starts_with("hub: no registry answers at"), "{away:?}");
}

#[tokio::test]
async fn a_line_for_each_change_where_there_is_no_terminal() {
    let platform = Platform::start(&[]).await;
    let mut watch = Watch::start(platform.command(&["watch"]));
    let log = platform.addrs.logs[0].0.to_string();
    let line = watch.line(&log).await;
    assert!(line.contains(" log/log-") && line.ends_with(&format!(" passing at {log}")), "{line}");
    assert_eq!(platform.hub(&["drain", &format!("log/{log}")]).await.code, Some(0));
    assert!(watch.line("draining").await.contains(" log/log-"));
    assert_eq!(platform.hub(&["undrain", &format!("log/{log}")]).await.code, Some(0));
    watch.line("takes requests again").await;
    let ghost = r#"{"Name":"ghost","Addr":"127.0.0.1:9"}"#;
    platform.http.post(format!("{}/services", platform.registry())).body(ghost).send().await.unwrap();
    watch.line("ghost/127.0.0.1:9 registered").await;
    // Nothing listens there, so it is found dead.
    watch.line("ghost/127.0.0.1:9 removed").await;
    assert_eq!(watch.interrupt().await, Some(0));
}

#[tokio::test]
async fn json_lines_for_scripts() {
    let platform = Platform::start(&[]).await;
    let mut watch = Watch::start(platform.command(&["watch", "--json"]));
    let first: Value = serde_json::from_str(&watch.line("").await).unwrap();
    assert_eq!(first["event"], "snapshot");
    assert_eq!(first["data"]["Services"]["log"].as_array().unwrap().len(), 3);
    let load: Value = serde_json::from_str(&watch.line("\"event\":\"load\"").await).unwrap();
    assert!(load["data"]["Services"].as_object().is_some());
    assert_eq!(watch.interrupt().await, Some(0));
}

#[tokio::test]
async fn a_registry_that_comes_later_is_found() {
    let nobody = Nobody::new();
    let mut late = command(&["watch"]);
    late.env("HUB_REGISTRY__URL", nobody.url());
    let mut watch = Watch::start(late);
    watch.line(&format!("registry {} is away: Connection refused", nobody.url())).await;
    let platform = Platform::start(&[("HUB_LISTEN", &nobody.addr())]).await;
    watch.line("visit/visit-").await;
    drop(platform);
    watch.line("is away").await;
    assert_eq!(watch.interrupt().await, Some(0));
}

#[tokio::test]
async fn the_screen_lives_and_gives_the_terminal_back() {
    let platform = Platform::start(&[]).await;
    let mut pty = Pty::start(platform.command(&["watch"]), 100, 30);
    pty.shows(&["live", "gateway (1)", "log (3)", "visit (1)", "q quit"]).await;
    // A share needs two heartbeats with requests in between.
    eventually("shares are shown", || async {
        platform.http.get(format!("{}/visit", platform.gateway())).send().await.unwrap();
        let screen = pty.screen();
        screen.contains("100.0 %") && (screen.contains('┊') || screen.contains('▓'))
    })
    .await;
    pty.press("/visit\r");
    pty.shows(&["filter: visit"]).await;
    assert!(!pty.screen().contains("log (3)"), "{}", pty.screen());
    // Drain what is selected, from the keyboard.
    pty.press("d");
    pty.shows(&["drain visit/visit-", "? y/n"]).await;
    pty.press("y");
    pty.shows(&["is draining", "draining"]).await;
    pty.press("\r");
    pty.shows(&["History of visit/visit-", "registered"]).await;
    pty.press("\x1b");
    pty.shows(&["Events (UTC)"]).await;
    pty.resize(140, 40);
    pty.shows(&["ADDRESS", &platform.addrs.visits[0].to_string()]).await;
    pty.press("q");
    assert_eq!(pty.ended().await, Some(0));
}

#[tokio::test]
async fn the_screen_says_when_the_registry_is_away_and_ends_by_signal_or_ctrl_c() {
    for (key, by_signal) in [("\x03", None), ("", Some("TERM")), ("", Some("INT"))] {
        let platform = Platform::start(&[]).await;
        let mut pty = Pty::start(platform.command(&["watch"]), 80, 24);
        pty.shows(&["live", "log (3)"]).await;
        drop(platform);
        pty.shows(&["STALE: registry away", "log (3)", "registry is away"]).await;
        match by_signal {
            Some(name) => signal(&pty.child, name),
            None => pty.press(key),
        }
        assert_eq!(pty.ended().await, Some(0), "{key:?} {by_signal:?}");
    }
}
