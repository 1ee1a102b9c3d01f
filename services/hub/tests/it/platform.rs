//! The whole platform in the test's process, on free ports, and the `hub` command run against it.

use hubspoke::config::HubConfig;
use hubspoke::up::{Hub, HubAddrs};
use hubspoke_chassis::config::ConfigSource;
use hubspoke_protocol::{CatalogView, InstanceView};
use hubspoke_testkit::process::{self, Exit};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;

/// A platform that stops when it is dropped.
pub(crate) struct TestPlatform {
    pub(crate) addrs: HubAddrs,
    pub(crate) http: reqwest::Client,
    _running: JoinSet<()>,
    _dir: TempDir,
}

impl TestPlatform {
    /// Starts one on free ports, with `vars` in its environment.
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

    /// Runs `hub` with this platform's registry to its end.
    pub(crate) async fn hub(&self, args: &[&str]) -> Exit {
        process::run(self.command(args)).await
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

/// The `hub` command in a clean environment.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = process::command(env!("CARGO_BIN_EXE_hub"));
    command.args(args);
    command
}
