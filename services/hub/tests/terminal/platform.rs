//! The whole platform in the test's process, on free ports, and the `hub` command run against it.

use std::process::{Output, Stdio};
use std::time::Duration;

use hubspoke::config::HubConfig;
use hubspoke::up::{Addrs, Hub};
use hubspoke_chassis::config::ConfigSource;
use hubspoke_protocol::{CatalogView, InstanceView};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take; a pass never waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Platform {
    pub(crate) addrs: Addrs,
    pub(crate) http: reqwest::Client,
    /// Ends with its owner.
    _running: JoinSet<()>,
    _dir: TempDir,
}

impl Platform {
    /// Starts it with these variables beside those that put it on free ports.
    pub(crate) async fn start(vars: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().to_str().unwrap();
        let free = "127.0.0.1:0";
        let base = [
            ("HUB_LISTEN", free),
            ("HUB_HUB__GATEWAY", free),
            ("HUB_HUB__GATEWAY_CONTROL", free),
            ("HUB_HUB__LOG", free),
            ("HUB_HUB__VISIT", free),
            ("HUB_HUB__DATA_DIR", data),
            ("HUB_REGISTRY__HEARTBEAT__INTERVAL", "200ms"),
            ("HUB_REGISTRY__HEARTBEAT__GAP", "50ms"),
        ];
        let base = base.iter().filter(|(name, _)| vars.iter().all(|(other, _)| other != name));
        let vars = base.chain(vars).map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let source = ConfigSource { vars, folder: "no-such-folder".into(), file: None };
        let hub = Hub::bind(&HubConfig::load(&source).unwrap().0).await.unwrap();
        let addrs = hub.addrs().clone();
        let mut running = JoinSet::new();
        running.spawn(async move { hub.run(std::future::pending()).await.unwrap() });
        addrs.ready(hubspoke::up::READY_TIMEOUT).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { addrs, http, _running: running, _dir: dir }
    }

    pub(crate) fn registry(&self) -> String {
        format!("http://{}", self.addrs.registry)
    }

    pub(crate) fn gateway(&self) -> String {
        format!("http://{}", self.addrs.gateway)
    }

    /// The `hub` command with this platform's registry.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = command(args);
        command.env("HUB_REGISTRY__URL", self.registry());
        command
    }

    /// Runs it to its end.
    pub(crate) async fn hub(&self, args: &[&str]) -> Ran {
        ran(self.command(args)).await
    }

    pub(crate) async fn catalog(&self) -> CatalogView {
        self.http.get(format!("{}/services", self.registry())).send().await.unwrap().json().await.unwrap()
    }

    /// The instance at an address.
    pub(crate) async fn instance(&self, service: &str, addr: &str) -> InstanceView {
        let catalog = self.catalog().await;
        catalog.services[service].iter().find(|instance| instance.info.addr == addr).unwrap().clone()
    }
}

/// The `hub` command in an environment of its own; killed when dropped.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hub"));
    command.args(args).env_clear().current_dir(std::env::temp_dir()).kill_on_drop(true).stdin(Stdio::null());
    command
}

/// An address at which nobody listens, and which nobody gets by chance while this lives.
pub(crate) struct Nobody(TcpSocket);

impl Nobody {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // So that a server that asks for this very address gets it.
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    pub(crate) fn addr(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr())
    }
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub(crate) async fn ran(mut command: Command) -> Ran {
    timeout(DEADLINE, command.output()).await.expect("it does not end").unwrap().into()
}

/// Sends a signal: `INT`, `TERM`.
pub(crate) fn signal(child: &Child, signal: &str) {
    let (signal, process) = (format!("-{signal}"), child.id().unwrap().to_string());
    assert!(std::process::Command::new("kill").args([signal, process]).status().unwrap().success());
}

pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
