//! A registry in this process.

use std::net::SocketAddr;
use std::time::Duration;

use hubspoke_chassis::config::{Common, Secret};
use hubspoke_chassis::{Config, ProblemType};
use hubspoke_protocol::{CatalogView, HUB_REVISION, InstanceState, InstanceView, Revision, ServiceInfo};
use hubspoke_registry::config::StoreKind;
use hubspoke_registry::{PROCESS, RegistryServer, Settings};
use hubspoke_testkit::etcd::EtcdCluster;
use hubspoke_testkit::{DEADLINE, FakeMember, MemberReply, eventually};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

pub(crate) struct TestRegistry {
    pub(crate) addr: SocketAddr,
    pub(crate) http: reqwest::Client,
    settings: Settings,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

pub(crate) struct RegistryReply {
    pub(crate) status: StatusCode,
    pub(crate) revision: Revision,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

/// Heartbeats in quick succession, with a timeout that a busy machine can keep.
pub(crate) fn quick() -> Settings {
    let mut settings = Settings::default();
    settings.heartbeat.interval = Duration::from_millis(200);
    settings.heartbeat.gap = Duration::from_millis(50);
    settings.heartbeat.timeout = Duration::from_millis(500);
    settings
}

/// The same, but using up all attempts takes longer than an interval. By then every instance has had a heartbeat, so
/// which ones self-protection holds back does not depend on their order.
pub(crate) fn slow_removal() -> Settings {
    let mut settings = quick();
    settings.heartbeat.gap = Duration::from_millis(150);
    settings
}

impl TestRegistry {
    pub(crate) async fn start() -> Self {
        Self::with(quick()).await
    }

    /// One on etcd, once it has read it.
    pub(crate) async fn on_etcd(etcd: &EtcdCluster, settings: Settings) -> Self {
        Self::on_endpoints(etcd.endpoints(), settings).await
    }

    /// The same, with the addresses by which it reaches etcd.
    pub(crate) async fn on_endpoints(endpoints: Vec<String>, mut settings: Settings) -> Self {
        settings.store = StoreKind::Etcd;
        settings.etcd.endpoints = endpoints;
        settings.etcd.lease = Duration::from_secs(2);
        let registry = Self::with(settings).await;
        registry.ready().await;
        registry
    }

    pub(crate) async fn ready(&self) {
        eventually("it is ready", || async {
            self.http.get(self.url("/readyz")).send().await.unwrap().status() == StatusCode::OK
        })
        .await;
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        Self::at(settings, "127.0.0.1:0".parse().unwrap(), None).await
    }

    pub(crate) async fn with_token(settings: Settings, token: &str) -> Self {
        Self::at(settings, "127.0.0.1:0".parse().unwrap(), Some(token)).await
    }

    async fn at(mut settings: Settings, listen: SocketAddr, token: Option<&str>) -> Self {
        // All tests on an etcd, to see what is different there: tests of the snapshot file, of the epoch of a restart, and
        // those that expect a state at once.
        let everything_on = std::env::var("HUBSPOKE_TEST_STORE_ETCD").ok();
        if let Some(endpoint) = &everything_on {
            settings.store = StoreKind::Etcd;
            settings.etcd.endpoints = vec![endpoint.clone()];
            if settings.etcd.prefix == "/hubspoke" {
                settings.etcd.prefix = format!("/{:x}", rand::random::<u64>());
            }
        }
        let mut common = Common::of(&PROCESS).unwrap();
        common.listen = listen;
        common.shutdown_grace = Duration::from_secs(5);
        common.registry.token = token.map(Secret::new);
        let deadline = Instant::now() + DEADLINE;
        let server = loop {
            // After a kill, the port may not be free at once.
            match RegistryServer::bind(Config { common: common.clone(), own: settings.clone() }).await {
                Ok(server) => break server,
                Err(_) if listen.port() != 0 && Instant::now() < deadline => {
                    sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        let addr = server.local_addr();
        let (stop, mut stopped) = watch::channel(false);
        let shutdown = async move { drop(stopped.wait_for(|stop| *stop).await) };
        let task = tokio::spawn(async move { server.run(shutdown).await.unwrap() });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let registry = Self { addr, http, settings, stop, task };
        if everything_on.is_some() {
            registry.ready().await;
        }
        registry
    }

    /// Aborts it, as kill -9 would.
    pub(crate) async fn kill(self) -> (Settings, SocketAddr) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
        (self.settings, self.addr)
    }

    /// Stops it, as ctrl-c would.
    pub(crate) async fn stop(self) -> (Settings, SocketAddr) {
        self.stop.send_replace(true);
        tokio::time::timeout(DEADLINE, self.task).await.expect("it stops").unwrap();
        (self.settings, self.addr)
    }

    pub(crate) async fn restart((settings, addr): (Settings, SocketAddr)) -> Self {
        Self::at(settings, addr, None).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> RegistryReply {
        let reply = self.http.request(method, self.url(path)).body(body).send().await.unwrap();
        RegistryReply::read(reply).await
    }

    pub(crate) async fn register(&self, info: &ServiceInfo) -> RegistryReply {
        self.call(Method::POST, "/services", serde_json::to_string(info).unwrap()).await
    }

    pub(crate) async fn deregister(&self, info: &ServiceInfo) -> RegistryReply {
        self.call(Method::DELETE, "/services", serde_json::to_string(info).unwrap()).await
    }

    pub(crate) async fn view(&self) -> CatalogView {
        self.http.get(self.url("/services")).send().await.unwrap().json().await.unwrap()
    }

    /// The sum of a metric's series.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.http.get(self.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let series = text.lines().filter(|line| line.starts_with(name));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The registered instances of a service.
    pub(crate) async fn live(&self, name: &str) -> Vec<InstanceView> {
        let list = self.view().await.services.remove(name).unwrap_or_default();
        list.into_iter().filter(|instance| instance.state != InstanceState::Removed).collect()
    }

    pub(crate) async fn addrs(&self, name: &str) -> Vec<String> {
        self.live(name).await.into_iter().map(|instance| instance.info.addr).collect()
    }

    pub(crate) async fn state(&self, name: &str, addr: &str) -> Option<InstanceState> {
        let list = self.view().await.services.remove(name).unwrap_or_default();
        list.into_iter().rfind(|instance| instance.info.addr == addr).map(|instance| instance.state)
    }
}

impl RegistryReply {
    pub(crate) async fn read(reply: reqwest::Response) -> Self {
        let (status, headers) = (reply.status(), reply.headers().clone());
        let revision = headers.get(HUB_REVISION).map(|value| value.to_str().unwrap().parse().unwrap());
        let text = reply.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        let nothing = Revision { epoch: 0, n: 0 };
        Self { status, revision: revision.unwrap_or(nothing), headers, body }
    }

    /// The status, after checking that the body is a problem document for it.
    pub(crate) fn problem(&self) -> u16 {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.body);
        assert_eq!(self.body["status"], self.status.as_u16());
        assert!(ProblemType::ALL.iter().any(|cause| self.body["type"] == cause.urn()), "{}", self.body);
        assert!(!self.body["detail"].as_str().unwrap().is_empty());
        self.status.as_u16()
    }
}

/// Registers `count` instances of the service `log`, all of which then fail.
pub(crate) async fn failing(registry: &TestRegistry, count: usize) -> Vec<FakeMember> {
    let mut logs = Vec::new();
    for _ in 0..count {
        let log = FakeMember::start().await;
        registry.register(&log.info("log", &[])).await;
        logs.push(log);
    }
    for log in &logs {
        log.on_heartbeat(MemberReply::Status(500));
    }
    logs
}
