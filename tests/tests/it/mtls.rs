//! Mutual TLS inside: a whole platform with a certificate for each service, and those who try to get in without one.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use hubspoke_chassis::config::{Common, IdentitySettings};
use hubspoke_chassis::{Config, Process};
use hubspoke_client::{HttpClient, HttpOptions};
use hubspoke_gateway::{GatewayConfig, GatewayServer};
use hubspoke_log::{LogConfig, LogServer};
use hubspoke_protocol::{CatalogView, IDENTITY_DOMAIN, InstanceState};
use hubspoke_registry::{RegistryServer, Settings};
use hubspoke_testkit::pki::{IdentityPaths, TestCa};
use hubspoke_testkit::{TestServer, eventually};
use hubspoke_tls::{CertFiles, Identity, IdentityFiles};
use hubspoke_visit::VisitServer;
use reqwest::{Method, StatusCode};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// A registry, a gateway, two log instances and a visit, each with a certificate of its own.
struct SecurePlatform {
    ca: TestCa,
    folder: TempDir,
    registry: SocketAddr,
    gateway: SocketAddr,
    gateway_control: SocketAddr,
    logs: Vec<SocketAddr>,
    visit: SocketAddr,
    /// Aborted when dropped.
    _services: JoinSet<()>,
}

fn settings(paths: &IdentityPaths) -> IdentitySettings {
    let mut settings = IdentitySettings::default();
    let IdentityPaths { cert, key, ca } = paths.clone();
    (settings.cert, settings.key, settings.ca) = (Some(cert), Some(key), Some(ca));
    settings
}

fn common(process: &Process, paths: &IdentityPaths, registry: SocketAddr) -> Common {
    let mut common = Common::of(process).unwrap();
    common.listen = "127.0.0.1:0".parse().unwrap();
    common.control_listen = process.control_listen.map(|_| "127.0.0.1:0".parse().unwrap());
    common.registry.url = format!("https://{registry}");
    common.tls = settings(paths);
    common
}

impl SecurePlatform {
    async fn start() -> Self {
        Self::start_with(TestCa::new(), tempfile::tempdir().unwrap()).await
    }

    async fn start_with(ca: TestCa, folder: TempDir) -> Self {
        let identity = |name: &str| ca.identity(&folder.path().join(name), &[name]);
        let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut services = JoinSet::new();
        let mut own = Settings::default();
        own.heartbeat.interval = Duration::from_millis(200);
        own.heartbeat.gap = Duration::from_millis(50);
        let own_common = common(&hubspoke_registry::PROCESS, &identity("registry"), nobody);
        let registry = RegistryServer::bind(Config { common: own_common, own }).await.unwrap();
        let at = registry.local_addr();
        run(&mut services, |stop| registry.run(stop));
        let own = GatewayConfig::exposing_all();
        let common_of = |process: &Process, name: &str| common(process, &identity(name), at);
        let gateway =
            GatewayServer::bind(Config { common: common_of(&hubspoke_gateway::PROCESS, "gateway"), own });
        let gateway = gateway.await.unwrap();
        let (gateway_addr, gateway_control) = (gateway.local_addr(), gateway.control_addr());
        run(&mut services, |stop| gateway.run(stop));
        let mut logs = Vec::new();
        for n in 1..=2 {
            let mut own = LogConfig::default();
            own.file = folder.path().join(format!("log-{n}")).join("services.log");
            let log = LogServer::bind(Config { common: common_of(&hubspoke_log::PROCESS, "log"), own });
            let log = log.await.unwrap();
            logs.push(log.local_addr());
            run(&mut services, |stop| log.run(stop));
        }
        let common = common_of(&hubspoke_visit::PROCESS, "visit");
        let visit = VisitServer::bind(Config { common, own: Default::default() }).await.unwrap();
        let visit_addr = visit.local_addr();
        run(&mut services, |stop| visit.run(stop));
        let platform = Self {
            ca,
            folder,
            registry: at,
            gateway: gateway_addr,
            gateway_control,
            logs,
            visit: visit_addr,
            _services: services,
        };
        platform.passing(4).await;
        platform
    }

    /// Waits until so many instances pass, and a visit through the gateway succeeds.
    async fn passing(&self, count: usize) {
        let reader = self.client("role/reader", &["registry"]);
        eventually("all instances pass", || async {
            let catalog = reader.send(reader.get(format!("https://{}/services", self.registry))).await;
            let Ok(catalog) = catalog else { return false };
            let catalog: CatalogView = catalog.json().await.unwrap();
            let instances = catalog.services.values().flatten();
            instances.filter(|instance| instance.state == InstanceState::Passing).count() == count
        })
        .await;
        eventually("a visit succeeds", || async { self.visit().await.is_ok() }).await;
    }

    async fn visit(&self) -> Result<String, String> {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let reply = http.get(format!("http://{}/visit", self.gateway)).send().await;
        let reply = reply.map_err(|error| error.to_string())?;
        let status = reply.status();
        let text = reply.text().await.unwrap();
        if status.is_success() { Ok(text) } else { Err(format!("{status}: {text}")) }
    }

    fn identity(&self, name: &str) -> Arc<Identity> {
        let IdentityPaths { cert, key, ca } = self.ca.identity(&self.folder.path().join(name), &[name]);
        Identity::open(
            IdentityFiles { own: CertFiles { cert, key, may_be_missing: false }, ca },
            IDENTITY_DOMAIN,
        )
        .unwrap()
    }

    /// A client with a certificate for `own`, of servers with one of these names.
    fn client(&self, own: &str, names: &[&str]) -> HttpClient {
        let options = HttpOptions::new(Duration::from_secs(10));
        HttpClient::new(names, Some(&self.identity(own)), options).unwrap()
    }

    async fn send(
        &self,
        own: &str,
        method: Method,
        server: (SocketAddr, &str),
        path: &str,
        body: &str,
    ) -> (StatusCode, String) {
        let client = self.client(own, &[server.1]);
        let request = client.request(method, format!("https://{}{path}", server.0)).body(body.to_owned());
        let reply = client.send(request).await.unwrap();
        (reply.status(), reply.text().await.unwrap())
    }

    fn entries(&self) -> String {
        let files = [1, 2].map(|n| self.folder.path().join(format!("log-{n}/services.log")));
        files.iter().map(|file: &PathBuf| std::fs::read_to_string(file).unwrap_or_default()).collect()
    }
}

/// Runs a service until it is aborted.
fn run<F, E>(services: &mut JoinSet<()>, run: impl FnOnce(std::future::Pending<()>) -> F)
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: std::fmt::Debug,
{
    let running = run(std::future::pending());
    services.spawn(async move { running.await.expect("a service ended by itself") });
}

fn info(name: &str, addr: SocketAddr) -> String {
    format!(r#"{{"Name":"{name}","Addr":"{addr}"}}"#)
}

#[tokio::test]
async fn everything_inside_speaks_mutual_tls() {
    let platform = SecurePlatform::start().await;
    let first: u64 = platform.visit().await.unwrap().trim().parse().unwrap();
    let second: u64 = platform.visit().await.unwrap().trim().parse().unwrap();
    assert_eq!(second, first + 1);
    eventually("the visits are logged", || async {
        platform.entries().lines().filter(|line| line.contains("visit")).count() as u64 >= second
    })
    .await;
    // A log instance asks its sibling, and registry and operators read what both have.
    let (status, all) =
        platform.send("role/operator", Method::GET, (platform.logs[0], "log"), "/log/all", "").await;
    assert_eq!((status, all.lines().count()), (StatusCode::OK, platform.entries().lines().count()));
    // In clear text, nobody answers but the gateway's public port.
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    for addr in [platform.registry, platform.gateway_control, platform.logs[0], platform.visit] {
        assert!(plain.get(format!("http://{addr}/livez")).send().await.is_err(), "{addr}");
    }
}

#[tokio::test]
async fn a_member_registers_only_under_the_name_in_its_certificate() {
    let platform = SecurePlatform::start().await;
    let registry = (platform.registry, "registry");
    let addr = SocketAddr::from(([127, 1, 2, 3], 9));
    for (own, name, allowed) in
        [("shop", "shop", true), ("shop", "visit", false), ("role/operator", "shop", false)]
    {
        for method in [Method::POST, Method::DELETE] {
            let (status, text) =
                platform.send(own, method.clone(), registry, "/services", &info(name, addr)).await;
            let expected = if allowed { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(status, expected, "{own} {method} {name}: {text}");
            let why = format!("the certificate of {own} may not register");
            assert!(allowed || text.contains(&why), "{text}");
        }
    }
    let drain = format!("/services/visit/{}/drain", platform.visit);
    for (own, status) in [("shop", StatusCode::FORBIDDEN), ("role/reader", StatusCode::FORBIDDEN)] {
        assert_eq!(platform.send(own, Method::PUT, registry, &drain, "").await.0, status, "{own}");
    }
    for method in [Method::PUT, Method::DELETE] {
        assert!(platform.send("role/operator", method, registry, &drain, "").await.0.is_success());
    }
}

#[tokio::test]
async fn a_stranger_answers_no_heartbeat_and_gets_no_request() {
    let platform = SecurePlatform::start().await;
    let stranger = TestServer::start(
        Router::new().route("/heart-beat", get(async || "")).route("/shop", get(async || "stolen")),
    )
    .await;
    // Registered by a member of `shop`, at an address where somebody else answers, in clear text or as another.
    let registered = info("shop", stranger.addr);
    let registry = (platform.registry, "registry");
    assert_eq!(platform.send("shop", Method::POST, registry, "/services", &registered).await.0, 200);
    let other = info("shop", platform.visit);
    assert_eq!(platform.send("shop", Method::POST, registry, "/services", &other).await.0, 200);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    eventually("the gateway knows them, and no request reaches them", || async {
        let reply = http.get(format!("http://{}/shop", platform.gateway)).send().await.unwrap();
        assert!(!reply.status().is_success(), "{}", reply.text().await.unwrap());
        reply.status().is_server_error()
    })
    .await;
    eventually("they do not pass, and the reason tells why", || async {
        let (_, text) = platform.send("role/reader", Method::GET, registry, "/services/shop", "").await;
        let catalog: CatalogView = serde_json::from_str(&text).unwrap();
        let failing = catalog.services["shop"].iter().all(|i| i.state != InstanceState::Passing);
        failing && text.contains("the other end's certificate is for visit, not for shop")
    })
    .await;
}

#[tokio::test]
async fn only_the_registry_pushes() {
    let platform = SecurePlatform::start().await;
    let push = info("log", SocketAddr::from(([127, 1, 2, 3], 9)));
    for method in [Method::POST, Method::DELETE, Method::PUT] {
        let (status, text) =
            platform.send("shop", method.clone(), (platform.visit, "visit"), "/services", &push).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method}: {text}");
        assert!(text.contains("only the registry may push"), "{text}");
    }
    // The certificate alone is not enough either: the member's push key is asked for, too.
    let (status, _) =
        platform.send("registry", Method::POST, (platform.visit, "visit"), "/services", &push).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn entries_are_read_and_written_by_right() {
    let platform = SecurePlatform::start().await;
    let log = (platform.logs[0], "log");
    for (own, reads, writes) in [
        ("role/reader", StatusCode::OK, StatusCode::FORBIDDEN),
        ("role/operator", StatusCode::OK, StatusCode::FORBIDDEN),
        ("shop", StatusCode::FORBIDDEN, StatusCode::OK),
    ] {
        assert_eq!(platform.send(own, Method::GET, log, "/log", "").await.0, reads, "{own}");
        assert_eq!(platform.send(own, Method::POST, log, "/log", "text").await.0, writes, "{own}");
    }
    // Through the gateway, the certificate is the gateway's and not the sender's.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/log", platform.gateway);
    assert_eq!(http.get(&url).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(http.post(&url).body("text").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_client_without_a_certificate_or_with_a_foreign_one_reaches_nobody() {
    let platform = SecurePlatform::start().await;
    let folder = tempfile::tempdir().unwrap();
    let foreign = TestCa::new();
    let IdentityPaths { cert, key, ca } = foreign.identity_with(
        folder.path(),
        &["shop"],
        hubspoke_testkit::pki::DAY,
        &[&foreign, &platform.ca],
    );
    let identity = Identity::open(
        IdentityFiles { own: CertFiles { cert, key, may_be_missing: false }, ca },
        IDENTITY_DOMAIN,
    )
    .unwrap();
    let names = ["registry", "gateway", "log", "visit"];
    let client = HttpClient::new(&names, Some(&identity), HttpOptions::new(Duration::from_secs(10))).unwrap();
    for addr in [platform.registry, platform.gateway_control, platform.logs[0], platform.visit] {
        let reply = client.send(client.get(format!("https://{addr}/livez"))).await;
        assert!(reply.is_err(), "{addr}");
    }
}

/// Writes the identities of all services anew, from this authority, trusting these.
fn reissue(platform: &SecurePlatform, issuer: &TestCa, trusted: &[&TestCa]) {
    for name in ["registry", "gateway", "log", "visit"] {
        issuer.identity_with(&platform.folder.path().join(name), &[name], (-60, 120), trusted);
    }
}

/// Waits until every process accepts (or refuses) a client of this authority that trusts another one, too.
async fn all_accept(platform: &SecurePlatform, issuer: &TestCa, trusted: &TestCa, accept: bool) {
    let folder = tempfile::tempdir().unwrap();
    let IdentityPaths { cert, key, ca } =
        issuer.identity_with(folder.path(), &["role/reader"], (-60, 120), &[issuer, trusted]);
    let files = IdentityFiles { own: CertFiles { cert, key, may_be_missing: false }, ca };
    let identity = Identity::open(files, IDENTITY_DOMAIN).unwrap();
    let names = ["registry", "gateway", "log", "visit"];
    let options = HttpOptions::new(Duration::from_secs(10)).with_idle_timeout(Duration::ZERO);
    let client = HttpClient::new(&names, Some(&identity), options).unwrap();
    let mut addrs = vec![platform.registry, platform.gateway_control, platform.visit];
    addrs.extend(&platform.logs);
    for addr in addrs {
        eventually("it has read its files again", || async {
            client.send(client.get(format!("https://{addr}/livez"))).await.is_ok() == accept
        })
        .await;
    }
}

/// The authority changes under load: both are trusted, then all have new certificates, then the old one is forgotten.
/// `HUBSPOKE_TEST_SECONDS` makes it go on for so long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_authorities_change_under_load_and_no_request_fails() {
    let seconds = std::env::var("HUBSPOKE_TEST_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(0));
    let platform = Arc::new(SecurePlatform::start().await);
    let mut load = JoinSet::new();
    let done = Arc::new(AtomicBool::new(false));
    for _ in 0..4 {
        let (platform, done) = (platform.clone(), done.clone());
        load.spawn(async move {
            let http = reqwest::Client::builder().no_proxy().build().unwrap();
            let (mut visits, mut failures) = (0_u64, Vec::new());
            while !done.load(Relaxed) {
                let reply = http.get(format!("http://{}/visit", platform.gateway)).send().await;
                match reply {
                    Ok(reply) if reply.status().is_success() => visits += 1,
                    Ok(reply) => {
                        failures.push(format!("{}: {}", reply.status(), reply.text().await.unwrap()))
                    }
                    Err(error) => failures.push(error.to_string()),
                }
            }
            (visits, failures)
        });
    }
    let mut last = None;
    loop {
        let (old, new) = (last.as_ref().unwrap_or(&platform.ca), TestCa::new());
        reissue(&platform, old, &[old, &new]);
        all_accept(&platform, &new, old, true).await;
        reissue(&platform, &new, &[old, &new]);
        all_accept(&platform, &new, &new, true).await;
        reissue(&platform, &new, &[&new]);
        all_accept(&platform, old, &new, false).await;
        last = Some(new);
        if Instant::now() >= until {
            break;
        }
    }
    done.store(true, Relaxed);
    let mut all = 0;
    for (visits, failures) in load.join_all().await {
        assert!(failures.is_empty(), "{failures:?}");
        all += visits;
    }
    assert!(all > 100, "{all} visits");
}
