//! The `hub` command as people run it: a real process, its output, its exit codes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should say where"
)]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const HUB: &str = env!("CARGO_BIN_EXE_hub");

fn hub(dir: &TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(HUB);
    command.args(args).current_dir(dir.path()).env_clear();
    command
}

fn run(args: &[&str], vars: &[(&str, &str)]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    hub(&dir, args).envs(vars.iter().copied()).output().unwrap()
}

/// `hub up` on free ports; killed when dropped.
struct Up {
    child: Child,
    stdout: BufReader<ChildStdout>,
    welcome: String,
    dir: TempDir,
}

impl Up {
    fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = hub(&dir, args);
        for key in ["LISTEN", "HUB__GATEWAY", "HUB__GATEWAY_CONTROL", "HUB__LOG", "HUB__VISIT"] {
            command.env(format!("HUB_{key}"), "127.0.0.1:0");
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut welcome = String::new();
        while !welcome.contains("ctrl-c") {
            assert_ne!(stdout.read_line(&mut welcome).unwrap(), 0, "hub up has ended: {welcome}");
        }
        Self { child, stdout, welcome, dir }
    }

    fn url(&self, service: &str) -> String {
        let line = self.welcome.lines().find(|line| line.trim_start().starts_with(service)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    }

    fn interrupt(&self) {
        let kill = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn up_runs_the_whole_platform_until_ctrl_c() {
    let mut up = Up::start(&["up", "--log", "2", "--visit", "2"]);
    assert!(up.welcome.starts_with("Hubspoke "), "{}", up.welcome);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let gateway = up.url("gateway");
    for _ in 0..20 {
        let reply = http.get(format!("{gateway}/visit")).send().await.unwrap();
        assert!(reply.status().is_success(), "{}", reply.text().await.unwrap());
    }
    let reply = http.post(format!("{gateway}/log")).body("hello").send().await.unwrap();
    assert_eq!(reply.status(), 200);

    let registry = up.url("registry");
    let status = run(&["status", "--registry", &registry], &[]);
    let table = String::from_utf8(status.stdout).unwrap();
    assert_eq!(table.lines().filter(|line| line.starts_with("log ")).count(), 2, "{table}");
    assert_eq!(table.lines().filter(|line| line.starts_with("visit ")).count(), 2, "{table}");
    let json = run(&["status", "--json"], &[("HUB_REGISTRY__URL", &registry)]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["Services"]["gateway"].as_array().unwrap().len(), 1);

    up.interrupt();
    assert_eq!(up.exit_code(), Some(0));
    let mut rest = String::new();
    up.stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "nothing is said after the welcome's last line");
    let lines = |n: usize| {
        let file = up.dir.path().join(format!("data/log-{n}/services.log"));
        std::fs::read_to_string(file).unwrap().lines().count()
    };
    assert_eq!(lines(1) + lines(2), 21, "every visit and the hello");
}

#[test]
fn a_wrong_configuration_is_one_line_and_exit_code_78() {
    for (args, vars, says) in [
        (&["up"][..], &[("HUB_LISTENN", "x")][..], "hub: configuration: HUB_LISTENN: unknown key"),
        (&[], &[("HUB_LOG__MAX_ENTRY", "much")], "hub: configuration: HUB_LOG__MAX_ENTRY: "),
        (&["up"], &[("HUB_SHUTDOWN_GRACE", "soon")], "hub: configuration: HUB_SHUTDOWN_GRACE: "),
        (&["--config", "none.toml"], &[], "hub: configuration: none.toml: can't be read: No such file"),
    ] {
        let output = run(args, vars);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{vars:?}: {stderr}");
        assert!(stderr.starts_with(says) && stderr.lines().count() == 1, "{vars:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_port_in_use_is_one_line_and_a_non_zero_exit_code() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = run(&["up"], &[("HUB_LISTEN", &addr)]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.contains(&format!("can't listen on {addr} (listen): Address already in use")), "{stderr}");
}

#[test]
fn status_says_when_there_is_no_registry() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = run(&["status", "--registry", &format!("http://{free}")], &[]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with(&format!("hub: no registry answers at http://{free}/services")), "{stderr}");
}

#[test]
fn check_config_shows_every_value_with_its_origin() {
    let output = run(&["--check-config"], &[("HUB_HUB__LOG_REPLICAS", "5"), ("HUB_REGISTRY__TOKEN", "hush")]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text.contains("hub.log_replicas = 5"), "{text}");
    assert!(text.contains("# HUB_HUB__LOG_REPLICAS"), "{text}");
    assert!(!text.contains("hush"), "{text}");
}
