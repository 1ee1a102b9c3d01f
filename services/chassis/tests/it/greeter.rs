//! The greeter as a process, between a fake registry and a fake log instance.

use std::path::PathBuf;
use std::time::Duration;

use hubspoke_protocol::ServiceInfo;
use hubspoke_testkit::process::{self, Exit};
use hubspoke_testkit::{FakeLog, FakeRegistry, eventually};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// The binary, which `cargo test` builds beside this test's.
pub(crate) fn command() -> Command {
    process::command(binary())
}

fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let binary = test.ancestors().nth(2).unwrap().join("examples/greeter");
    assert!(binary.exists(), "run all tests of the package, so that cargo builds its examples");
    binary
}

/// A program of its own, so that a health check finds no greeter of another test.
pub(crate) struct OwnProgram {
    folder: TempDir,
}

impl OwnProgram {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(binary(), folder.path().join("greeter")).unwrap();
        Self { folder }
    }

    pub(crate) fn command(&self) -> Command {
        process::command(self.folder.path().join("greeter"))
    }

    /// A configuration file beside it.
    pub(crate) fn config(&self, name: &str, text: &str) -> String {
        let file = self.folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }

    pub(crate) async fn healthcheck(&self, args: &[&str]) -> Exit {
        let mut command = self.command();
        command.args(args).arg("healthcheck");
        process::run(command).await
    }
}

/// Runs a greeter to its end.
pub(crate) async fn run(args: &[&str], vars: &[(&str, &str)]) -> Exit {
    let mut command = command();
    command.args(args).envs(vars.iter().copied());
    process::run(command).await
}

/// A registry that knows one log instance, `log-1`.
pub(crate) struct Platform {
    pub(crate) registry: FakeRegistry,
    pub(crate) log: FakeLog,
}

impl Platform {
    pub(crate) async fn start() -> Self {
        let (registry, log) = (FakeRegistry::core_only().await, FakeLog::start().await);
        let mut info: ServiceInfo = log.info();
        info.id = Some("log-1".to_owned());
        registry.set("log", &[info]);
        Self { registry, log }
    }

    /// The trace context of the last entry.
    pub(crate) fn last_traceparent(&self) -> String {
        self.log.requests().pop().unwrap().traceparent.unwrap()
    }
}

/// A greeter that is ready.
pub(crate) struct Greeter {
    pub(crate) url: String,
    child: Child,
}

impl Greeter {
    pub(crate) async fn start(platform: &Platform, vars: &[(&str, &str)]) -> Self {
        // The tests themselves may run under nohup, and an ignored signal is inherited.
        let mut env = process::command("/usr/bin/env");
        env.arg("--default-signal=HUP").arg(binary());
        Self::spawn(env, platform, vars).await
    }

    /// Starts one with a limit of open files: `-S 64` is a soft one, `48` a hard one.
    pub(crate) async fn start_with_file_limit(platform: &Platform, files: &str) -> Self {
        let mut shell = process::command("/bin/sh");
        shell.arg("-c").arg(format!("ulimit -n {files} && exec \"$0\"")).arg(binary());
        Self::spawn(shell, platform, &[]).await
    }

    /// Starts one that ignores SIGHUP, as `nohup` does.
    pub(crate) async fn start_without_hangup(platform: &Platform) -> Self {
        let mut shell = process::command("/bin/sh");
        shell.arg("-c").arg("trap '' HUP && exec \"$0\"").arg(binary());
        Self::spawn(shell, platform, &[]).await
    }

    async fn spawn(mut command: Command, platform: &Platform, vars: &[(&str, &str)]) -> Self {
        let before = platform.registry.count("POST".parse().unwrap());
        let url = platform.registry.url();
        let registry = ("HUB_REGISTRY__URL", url.as_str());
        let child = command.envs([registry]).envs(vars.iter().copied()).spawn().unwrap();
        let addr = platform.registry.registration(before + 1).await.addr;
        eventually("healthy", async || {
            run(&["healthcheck"], &[registry, ("HUB_LISTEN", &addr)]).await.code == Some(0)
        })
        .await;
        Self { url: format!("http://{addr}"), child }
    }

    pub(crate) async fn signal(&self, name: &str) {
        process::signal(&self.child, name).await;
    }

    /// Whether it still runs after this time.
    pub(crate) async fn keeps_running_for(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.child.wait()).await.is_err()
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) async fn terminate(self) -> Exit {
        self.stop_with("TERM").await
    }

    /// Sends a signal and waits for the end.
    pub(crate) async fn stop_with(self, signal: &str) -> Exit {
        self.signal(signal).await;
        process::wait(self.child).await
    }
}
