//! A fixture for tests across services: the real servers of a platform, in this process, on free ports.
//!
//! ```no_run
//! # async fn story() {
//! use hubspoke_tests::Platform;
//! let mut platform = Platform::start().await.log(3).await.visit(1).await;
//! assert_eq!(platform.visit_count().await, 1);
//! platform.logs.remove(0).kill().await;
//! assert_eq!(platform.visit_count().await, 2);
//! # }
//! ```
//!
//! No test sleeps for a fixed time: [`eventually`] waits for a condition.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test names its place")]

use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hubspoke_chassis::config::Common;
use hubspoke_chassis::{Config, Process};
use hubspoke_protocol::{CatalogView, DIRECTORY_PATH, SERVICES_PATH, ServiceLists};
use hubspoke_testkit::{DEADLINE, eventually};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// A registry, a gateway, and as many log and visit instances as a test starts.
pub struct Platform {
    /// The registry; replaced by [`Platform::restart_registry`].
    pub registry: RunningService,
    /// Further registries, if several share a store.
    pub registries: Vec<RunningService>,
    /// The gateway.
    pub gateway: RunningService,
    /// Log instances, in the order in which they were started.
    pub logs: Vec<RunningService>,
    /// Visit instances, in the order in which they were started.
    pub visits: Vec<RunningService>,
    /// For requests of the test.
    pub http: reqwest::Client,
    settings: hubspoke_registry::Settings,
    /// The URLs of all registries.
    registry_url: String,
    dir: TempDir,
    log_files: usize,
}

/// What a member answers to `GET /directory`.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DirectoryView {
    services: ServiceLists,
}

/// A running instance of a service.
pub struct RunningService {
    /// The address on which it listens.
    pub addr: SocketAddr,
    /// The address of its control routes.
    pub control: SocketAddr,
    /// The file of a log instance.
    pub file: PathBuf,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Completes when the service is to stop.
type Stopped = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl RunningService {
    fn run<F, Fut, E>(addr: SocketAddr, run: F) -> Self
    where
        F: FnOnce(Stopped) -> Fut,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Debug,
    {
        let (stop, mut stopped) = watch::channel(false);
        let run = run(Box::pin(async move { drop(stopped.wait_for(|stop| *stop).await) }));
        let task = tokio::spawn(async move { run.await.expect("a service ended by itself") });
        Self { addr, control: addr, file: PathBuf::new(), stop, task }
    }

    /// Stops it as ctrl-c would, and waits until it has stopped.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(DEADLINE, self.task).await.expect("it does not stop").unwrap();
    }

    /// Starts to stop it. The result completes when it has stopped.
    pub fn stopping(self) -> JoinHandle<()> {
        self.stop.send_replace(true);
        self.task
    }

    /// Kills it as kill -9 would: its connections break, and it does not deregister.
    pub async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Platform {
    /// Starts a registry with quick heartbeats, and a gateway that exposes every service.
    pub async fn start() -> Self {
        let mut settings = hubspoke_registry::Settings::default();
        settings.heartbeat.interval = Duration::from_millis(200);
        settings.heartbeat.gap = Duration::from_millis(50);
        Self::start_with(settings).await
    }

    /// Starts a registry with these settings, and a gateway that exposes every service.
    pub async fn start_with(settings: hubspoke_registry::Settings) -> Self {
        Self::start_several(settings, 1).await
    }

    /// Starts registries that share a store, and a gateway that exposes every service.
    pub async fn start_several(settings: hubspoke_registry::Settings, count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut registries = Vec::new();
        for _ in 0..count {
            registries.push(registry(&settings, "127.0.0.1:0".parse().unwrap()).await);
        }
        let registry_url = registries.iter().map(RunningService::url).collect::<Vec<_>>().join(",");
        let gateway = gateway(&registry_url).await;
        Self {
            registry: registries.remove(0),
            registries,
            registry_url,
            gateway,
            logs: Vec::new(),
            visits: Vec::new(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            settings,
            dir,
            log_files: 0,
        }
    }

    /// Starts another gateway.
    pub async fn another_gateway(&self) -> RunningService {
        gateway(&self.registry_url).await
    }

    /// Starts `n` more log instances and waits until the platform has [settled](Self::settled).
    pub async fn log(mut self, n: usize) -> Self {
        self.add_logs(n).await;
        self
    }

    /// Starts `n` more visit instances and waits until the platform has [settled](Self::settled).
    pub async fn visit(mut self, n: usize) -> Self {
        for _ in 0..n {
            let common = member(&hubspoke_visit::PROCESS, &self.registry_url);
            let server =
                hubspoke_visit::VisitServer::bind(Config { common, own: Default::default() }).await.unwrap();
            self.visits.push(RunningService::run(server.local_addr(), |stop| server.run(stop)));
        }
        self.settled().await;
        self
    }

    /// Starts `n` more log instances and waits until the platform has [settled](Self::settled).
    pub async fn add_logs(&mut self, n: usize) {
        for _ in 0..n {
            self.log_files += 1;
            let file = self.dir.path().join(format!("log-{}", self.log_files)).join("services.log");
            self.logs.push(log(&self.registry_url, &file).await);
        }
        self.settled().await;
    }

    /// Starts a log instance at the address and with the file of one that has ended; waits until the platform has
    /// [settled](Self::settled).
    pub async fn restart_log(&mut self, addr: SocketAddr, file: &Path) {
        self.logs.push(log_at(&self.registry_url, addr, file).await);
        self.settled().await;
    }

    /// Waits until the catalogue lists exactly the running instances, each of them is ready, and its directory agrees
    /// with the catalogue.
    pub async fn settled(&self) {
        let mut expected: Vec<_> = self.logs.iter().map(|log| ("log", log.addr)).collect();
        expected.extend(self.visits.iter().map(|visit| ("visit", visit.addr)));
        expected.push(("gateway", self.gateway.addr));
        expected.sort();
        eventually("the catalogue lists the running instances", || async {
            let Some(view) = self.catalog().await else { return false };
            live(&view)
                == expected
                    .iter()
                    .map(|(name, addr)| ((*name).to_owned(), addr.to_string()))
                    .collect::<Vec<_>>()
        })
        .await;
        let all = self.logs.iter().chain(&self.visits).chain([&self.gateway]);
        for instance in all {
            eventually("it is ready", || async {
                let url = format!("http://{}/readyz", instance.control);
                self.http.get(url).send().await.is_ok_and(|reply| reply.status().is_success())
            })
            .await;
        }
        self.directories_agree().await;
    }

    /// Waits until the directory of every member agrees with the catalogue.
    async fn directories_agree(&self) {
        for instance in self.logs.iter().chain(&self.visits).chain([&self.gateway]) {
            eventually("its directory agrees with the catalogue", || async {
                let url = format!("http://{}{DIRECTORY_PATH}", instance.control);
                let Ok(reply) = self.http.get(url).send().await else { return false };
                let Ok(directory) = reply.json::<DirectoryView>().await else { return false };
                let Some(view) = self.catalog().await else { return false };
                let live = live(&view);
                directory.services.0.iter().all(|(name, list)| {
                    let mut known: Vec<_> =
                        list.iter().map(|info| (name.clone(), info.addr.clone())).collect();
                    known.sort();
                    known == live.iter().filter(|(live, _)| live == name).cloned().collect::<Vec<_>>()
                }) && (instance.addr != self.gateway.addr
                    || live.iter().all(|(name, _)| directory.services.0.contains_key(name)))
            })
            .await;
        }
    }

    /// The catalogue; `None` if the registry does not answer.
    pub async fn catalog(&self) -> Option<CatalogView> {
        let reply = self.http.get(format!("{}{SERVICES_PATH}", self.registry.url())).send().await.ok()?;
        reply.json().await.ok()
    }

    /// Visits once through the gateway; returns the number of the visit.
    pub async fn visit_count(&self) -> u64 {
        let reply = self.http.get(format!("{}/visit", self.gateway.url())).send().await.unwrap();
        let status = reply.status();
        let text = reply.text().await.unwrap();
        assert!(status.is_success(), "{status}: {text}");
        text.trim().parse().unwrap_or_else(|_| panic!("not a number: {text:?}"))
    }

    /// Kills the registry and starts another at the same address.
    pub async fn restart_registry(&mut self) {
        let addr = self.registry.addr;
        let fresh = registry_later(&self.settings, addr);
        std::mem::replace(&mut self.registry, fresh).kill().await;
        eventually("the registry is back", || async { self.catalog().await.is_some() }).await;
    }
}

/// Name and address of all instances in the catalogue that are not removed, sorted.
pub fn live(view: &CatalogView) -> Vec<(String, String)> {
    let instances = view.services.values().flatten();
    let mut live: Vec<_> = instances
        .filter(|instance| instance.state != hubspoke_protocol::InstanceState::Removed)
        .map(|instance| (instance.info.name.clone(), instance.info.addr.clone()))
        .collect();
    live.sort();
    live
}

/// The entries in a log file.
pub fn entries(file: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect()
}

/// The common configuration of a process: on free ports, with this registry.
pub fn common(process: &Process, registry: SocketAddr) -> Common {
    let mut common = Common::of(process).unwrap();
    common.listen = "127.0.0.1:0".parse().unwrap();
    common.control_listen = process.control_listen.map(|_| "127.0.0.1:0".parse().unwrap());
    common.registry.url = format!("http://{registry}");
    common
}

/// The same with the URLs of all registries.
fn member(process: &Process, registries: &str) -> Common {
    let mut common = common(process, SocketAddr::from(([127, 0, 0, 1], 0)));
    registries.clone_into(&mut common.registry.url);
    common
}

async fn bind_registry(
    settings: &hubspoke_registry::Settings,
    addr: SocketAddr,
) -> Option<hubspoke_registry::RegistryServer> {
    let mut common = common(&hubspoke_registry::PROCESS, addr);
    common.listen = addr;
    hubspoke_registry::RegistryServer::bind(Config { common, own: settings.clone() }).await.ok()
}

async fn registry(settings: &hubspoke_registry::Settings, addr: SocketAddr) -> RunningService {
    let server = bind_registry(settings, addr).await.expect("a free port");
    RunningService::run(server.local_addr(), |stop| server.run(stop))
}

/// A registry that binds the address as soon as its predecessor has released it.
fn registry_later(settings: &hubspoke_registry::Settings, addr: SocketAddr) -> RunningService {
    let settings = settings.clone();
    RunningService::run(addr, move |stop| async move {
        loop {
            if let Some(server) = bind_registry(&settings, addr).await {
                return server.run(stop).await;
            }
            sleep(Duration::from_millis(1)).await;
        }
    })
}

async fn gateway(registries: &str) -> RunningService {
    let common = member(&hubspoke_gateway::PROCESS, registries);
    let own = hubspoke_gateway::GatewayConfig::exposing_all();
    let server = hubspoke_gateway::GatewayServer::bind(Config { common, own }).await.unwrap();
    let (addr, control) = (server.local_addr(), server.control_addr());
    RunningService { control, ..RunningService::run(addr, |stop| server.run(stop)) }
}

async fn log(registries: &str, file: &Path) -> RunningService {
    log_at(registries, "127.0.0.1:0".parse().unwrap(), file).await
}

async fn log_at(registries: &str, listen: SocketAddr, file: &Path) -> RunningService {
    let mut common = member(&hubspoke_log::PROCESS, registries);
    common.listen = listen;
    let mut own = hubspoke_log::LogConfig::default();
    own.file = file.to_owned();
    let server = hubspoke_log::LogServer::bind(Config { common, own }).await.unwrap();
    RunningService {
        file: file.to_owned(),
        ..RunningService::run(server.local_addr(), |stop| server.run(stop))
    }
}
