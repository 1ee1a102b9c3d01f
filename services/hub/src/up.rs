//! `hub up`: registry, gateway, log and visit in one process, each on its own port and over the same HTTP as
//! anywhere else. All ports are bound before anything runs, so a port in use is reported first. Shutdown goes
//! from the outside in, so that each service outlives those that call it.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use hubspoke_chassis::{BindError, boot};
use hubspoke_client::{HttpClient, HttpClientError, HttpOptions};
use hubspoke_gateway::GatewayServer;
use hubspoke_log::{LogServer, LogServerError};
use hubspoke_protocol::{DIRECTORY_PATH, Snapshot};
use hubspoke_registry::RegistryServer;
use hubspoke_tls::Identity;
use hubspoke_visit::{VisitServer, VisitServerError};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::cause::Cause;
use crate::config::{HubConfig, PROCESS, scheme};
use crate::data_dir::DataDir;
use crate::invocation::quoted;
use crate::text;

use self::local_tls::LocalTls;
use self::servers::ServerGroup;

mod local_tls;
mod servers;

/// How long `hub up` waits for all services to be ready.
pub const READY_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a service that is not ready is polled.
const READY_POLL: Duration = Duration::from_millis(10);

/// The whole platform, bound but not yet running.
pub struct Hub {
    registry: RegistryServer,
    more_registries: Vec<RegistryServer>,
    gateway: GatewayServer,
    logs: Vec<LogServer>,
    visits: Vec<VisitServer>,
    addrs: HubAddrs,
    /// The certificates that this process keeps from ending.
    local_tls: Option<LocalTls>,
    /// Held until the last service has stopped.
    _data_dir: DataDir,
}

/// The addresses of all services.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HubAddrs {
    /// The registry, or the first one.
    pub registry: SocketAddr,
    /// Further registries, which share its catalogue.
    pub more_registries: Vec<SocketAddr>,
    /// The URLs of the etcd that has the catalogue, if one has.
    pub etcd: Vec<String>,
    /// The gateway's public port.
    pub gateway: SocketAddr,
    /// The gateway's public port for TLS.
    pub gateway_tls: Option<SocketAddr>,
    /// The authority of the gateway's certificates, if they are of this program's making.
    pub authority: Option<PathBuf>,
    /// The gateway's control port.
    pub gateway_control: SocketAddr,
    /// Each log replica with its file.
    pub logs: Vec<(SocketAddr, PathBuf)>,
    /// Each visit replica.
    pub visits: Vec<SocketAddr>,
    /// Whether writing entries requires a token.
    pub requires_tokens: bool,
    /// The host that people and members use for a wildcard address. Unset: loopback.
    pub host: Option<String>,
    /// The identity of all services, if they speak mutual TLS.
    pub identity: Option<Arc<Identity>>,
}

impl Hub {
    /// Locks the data folder and binds all ports.
    ///
    /// # Errors
    /// If the folder or a port is in use, a file can't be opened, or the configuration is invalid.
    pub async fn bind(config: &HubConfig) -> anyhow::Result<Self> {
        let data_dir = DataDir::lock(&config.hub.data_dir)?;
        let registry = RegistryServer::bind(config.registry(1)).await;
        let registry = registry.map_err(|error| name_hub_key(error, "listen", "")).context("registry")?;
        let mut more_registries = Vec::new();
        for n in 2..=config.hub.registries {
            let server = RegistryServer::bind(config.registry(n)).await;
            let server = server.map_err(|error| name_hub_key(error, "listen", ""));
            more_registries.push(server.with_context(|| format!("registry {n}"))?);
        }
        let more_addrs: Vec<_> = more_registries.iter().map(RegistryServer::local_addr).collect();
        let registry_url = registry_url(config.common.tls.is_on(), registry.local_addr(), &more_addrs);
        let local_tls =
            config.makes_certificates().then(|| LocalTls::new(config.tls_dir(), config.gateway_hosts()));
        let authority = local_tls.as_ref().map(|tls| tls.ensure(Timestamp::now()));
        let authority = authority.transpose().context("the certificates of hub up --tls")?;
        let gateway = GatewayServer::bind(config.gateway(&registry_url)).await;
        let gateway = gateway
            .map_err(|error| name_hub_key(error, "hub.gateway", "hub.gateway_control"))
            .context("gateway")?;
        if let Some(authority) = authority {
            gateway.issue_certificates(local_tls::issue_on_demand(authority)?);
        }
        let (mut logs, mut log_addrs) = (Vec::new(), Vec::new());
        for n in 1..=config.hub.log_replicas {
            let log = config.log(n, &registry_url);
            let file = log.own.file.clone();
            let server = LogServer::bind(log).await.map_err(|error| match error {
                LogServerError::Bind(error) => name_hub_key(error, "hub.log", "").into(),
                error => anyhow::Error::from(error),
            });
            let server = server.with_context(|| format!("log replica {n}"))?;
            log_addrs.push((server.local_addr(), file));
            logs.push(server);
        }
        let mut visits = Vec::new();
        for n in 1..=config.hub.visit_replicas {
            let visit = config.visit(n, &registry_url);
            let server = VisitServer::bind(visit).await.map_err(|error| match error {
                VisitServerError::Bind(error) => name_hub_key(error, "hub.visit", "").into(),
                error => anyhow::Error::from(error),
            });
            visits.push(server.with_context(|| format!("visit replica {n}"))?);
        }
        let addrs = HubAddrs {
            registry: registry.local_addr(),
            more_registries: more_addrs,
            etcd: config.etcd().to_vec(),
            gateway: gateway.local_addr(),
            gateway_tls: gateway.tls_addr(),
            authority: local_tls.as_ref().map(LocalTls::authority_cert),
            gateway_control: gateway.control_addr(),
            logs: log_addrs,
            visits: visits.iter().map(VisitServer::local_addr).collect(),
            requires_tokens: config.requires_tokens() || config.common.tls.is_on(),
            identity: config.common.tls.open()?,
            host: config.advertise_host().map(str::to_owned),
        };
        Ok(Self { registry, more_registries, gateway, logs, visits, addrs, local_tls, _data_dir: data_dir })
    }

    /// The addresses of all services.
    pub fn addrs(&self) -> &HubAddrs {
        &self.addrs
    }

    /// Runs everything until `shutdown` is done, then stops gateway, visit, log and registry in this order.
    /// Each shuts down gracefully even if another one fails.
    ///
    /// # Errors
    /// The first failure: a service that ended too early or failed to shut down gracefully.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut registries = ServerGroup::default();
        registries.start(|stop| self.registry.run(stop));
        for registry in self.more_registries {
            let (first, identity) = (self.addrs.registry, self.addrs.identity.clone());
            registries.start(|mut stop| async move {
                // An etcd without a catalogue begins with the snapshot file, which only the first one has.
                tokio::select! {
                    () = &mut stop => return Ok(()),
                    ready = registry_ready(first, identity.as_ref()) => ready?,
                }
                registry.run(stop).await.map_err(anyhow::Error::from)
            });
        }
        let mut logs = ServerGroup::default();
        for log in self.logs {
            logs.start(|stop| log.run(stop));
        }
        let mut visits = ServerGroup::default();
        for visit in self.visits {
            visits.start(|stop| visit.run(stop));
        }
        let mut gateway = ServerGroup::default();
        gateway.start(|stop| self.gateway.run(stop));
        let renewal = self.local_tls.map_or_else(
            || Box::pin(std::future::pending()) as Pin<Box<dyn Future<Output = ()> + Send>>,
            |tls| Box::pin(tls.keep()),
        );
        let mut result = tokio::select! {
            () = shutdown => Ok(()),
            () = renewal => Ok(()), // it never ends
            ended = registries.ended() => Err(ended.context("a registry stopped unexpectedly")),
            ended = logs.ended() => Err(ended.context("a log replica stopped unexpectedly")),
            ended = visits.ended() => Err(ended.context("a visit replica stopped unexpectedly")),
            ended = gateway.ended() => Err(ended.context("the gateway stopped unexpectedly")),
        };
        for servers in [gateway, visits, logs, registries] {
            let stopped = servers.stop().await;
            result = result.and(stopped);
        }
        result
    }
}

impl HubAddrs {
    /// Waits until every service is ready and knows the instances that it calls. (The last ones to start are
    /// pushed to the others a moment later, and the first request should already find them.)
    ///
    /// # Errors
    /// If a service is not ready in time: which one, and why.
    pub async fn ready(&self, within: Duration) -> anyhow::Result<()> {
        let client = poll_client(within, self.identity.as_ref())?;
        let deadline = Instant::now() + within;
        let registries = std::iter::once(self.registry).chain(self.more_registries.iter().copied());
        let callers = || self.logs.iter().map(|(addr, _)| *addr).chain(self.visits.iter().copied());
        for addr in registries.chain([self.gateway_control]).chain(callers()) {
            poll(&client, deadline, addr, hubspoke_chassis::health::READYZ_PATH, |_| true).await?;
        }
        let logs = [(hubspoke_log::PROCESS.name, self.logs.len())];
        let all = [logs[0], (hubspoke_visit::PROCESS.name, self.visits.len())];
        for addr in callers() {
            poll(&client, deadline, addr, DIRECTORY_PATH, |body| knows(body, &logs)).await?;
        }
        poll(&client, deadline, self.gateway_control, DIRECTORY_PATH, |body| knows(body, &all)).await
    }

    /// The URLs of all registries, separated by commas.
    pub fn registry_url(&self) -> String {
        registry_url(self.identity.is_some(), self.registry, &self.more_registries)
    }

    /// The banner: what runs where, and what to try. `hub` is the command line that starts this program.
    pub fn banner(&self, version: &str, hub: &str) -> String {
        let instances = 2 + self.more_registries.len() + self.logs.len() + self.visits.len();
        let mut text = format!("Hubspoke {version} is up: {instances} services in one process.\n\n");
        if !self.etcd.is_empty() {
            text += &format!("  etcd      {}\n", self.etcd.join(", "));
        }
        let scheme = scheme(self.identity.is_some());
        for addr in std::iter::once(&self.registry).chain(&self.more_registries) {
            text += &format!("  registry  {scheme}://{}\n", self.shown(*addr));
        }
        text += &format!("  gateway   http://{}\n", self.shown(self.gateway));
        if let Some(addr) = self.gateway_tls {
            text += &format!("            https://{}\n", self.shown(addr));
        }
        for addr in &self.visits {
            text += &format!("  visit     {scheme}://{}\n", self.shown(*addr));
        }
        for (addr, file) in &self.logs {
            text += &format!("  log       {scheme}://{}  → {}\n", self.shown(*addr), file.display());
        }
        // Another shell may not have the settings of this one.
        let registry = boot::reachable(self.registry).to_string();
        let option = if registry == PROCESS.listen {
            String::new()
        } else {
            format!(" --registry {scheme}://{registry}")
        };
        let gateway = boot::reachable(self.gateway);
        let (visit, log) = (quoted(&format!("{gateway}/visit")), quoted(&format!("{gateway}/log")));
        text += &format!("\nTry:   curl {visit}\n");
        if !self.requires_tokens {
            text += &format!("       curl -d hello {log}\n");
        }
        if let (Some(authority), Some(addr)) = (&self.authority, self.gateway_tls) {
            let (authority, port) = (quoted(&authority.display().to_string()), addr.port());
            text += &format!("       curl --cacert {authority} https://visit.localhost:{port}/visit\n");
        }
        text += &format!("       {hub} status{option}\nStop:  ctrl-c\n");
        text
    }

    /// An address as others use it.
    fn shown(&self, addr: SocketAddr) -> String {
        match self.host.as_deref().filter(|_| addr.ip().is_unspecified()) {
            Some(host) if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{}", addr.port()),
            Some(host) => format!("{host}:{}", addr.port()),
            None => boot::reachable(addr).to_string(),
        }
    }
}

/// Replaces the service's keys in a bind error with those that set the addresses in `hub up`.
fn name_hub_key(error: BindError, listen: &'static str, control_listen: &'static str) -> BindError {
    match error {
        BindError::Listen { addr, key, error, .. } => {
            let key = if key == "listen" { listen } else { control_listen };
            BindError::Listen { addr, key, program: PROCESS.name, error }
        }
        error => error,
    }
}

/// The URLs of registries, separated by commas.
fn registry_url(is_tls: bool, first: SocketAddr, more: &[SocketAddr]) -> String {
    let url = |addr: &SocketAddr| format!("{}://{}", scheme(is_tls), boot::reachable(*addr));
    std::iter::once(&first).chain(more).map(url).collect::<Vec<_>>().join(",")
}

fn poll_client(timeout: Duration, identity: Option<&Arc<Identity>>) -> Result<HttpClient, HttpClientError> {
    let names = identity.map(|identity| identity.names()).unwrap_or_default();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    HttpClient::new(&names, identity, HttpOptions::new(timeout))
}

/// Waits until a registry is ready.
async fn registry_ready(addr: SocketAddr, identity: Option<&Arc<Identity>>) -> anyhow::Result<()> {
    let client = poll_client(READY_TIMEOUT, identity)?;
    let path = hubspoke_chassis::health::READYZ_PATH;
    while poll(&client, Instant::now() + READY_TIMEOUT, addr, path, |_| true).await.is_err() {}
    Ok(())
}

/// Polls a service until it answers with success and a body that is `wanted`.
async fn poll(
    client: &HttpClient,
    deadline: Instant,
    addr: SocketAddr,
    path: &str,
    wanted: impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    let url = format!("{}://{}{path}", client.scheme(), boot::reachable(addr));
    let mut told = None;
    loop {
        let limit = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let why = match client.send(client.get(&url).timeout(limit)).await {
            Ok(reply) => {
                let status = reply.status();
                let body = reply.text().await.unwrap_or_default();
                if status.is_success() && wanted(&body) {
                    return Ok(());
                }
                let unknown = || "it does not know all instances yet".to_owned();
                let why = if status.is_success() { unknown() } else { text::problem_detail(body.as_bytes()) };
                told.insert(why).clone()
            }
            // If the deadline cut it off, what was said before says more.
            Err(error) => told
                .take_if(|_| Instant::now() > deadline)
                .unwrap_or_else(|| Cause::of_send(&error).to_string()),
        };
        if Instant::now() > deadline {
            return Err(anyhow!("{addr} is not ready: {why}"));
        }
        sleep(READY_POLL).await;
    }
}

/// Whether a member's directory has at least this many instances of each service.
fn knows(directory: &str, services: &[(&str, usize)]) -> bool {
    let Ok(known) = serde_json::from_str::<Snapshot>(directory) else { return false };
    services.iter().all(|(name, count)| known.services.0.get(*name).is_some_and(|list| list.len() >= *count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_names_a_registry_at_an_unusual_address() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let mut addrs = HubAddrs {
            registry: addr("127.0.0.1:20000"),
            more_registries: vec![],
            etcd: vec![],
            gateway: addr("127.0.0.1:20001"),
            gateway_tls: None,
            authority: None,
            gateway_control: addr("127.0.0.1:20011"),
            logs: vec![],
            visits: vec![],
            requires_tokens: false,
            host: None,
            identity: None,
        };
        assert!(addrs.banner("0", "hub").contains("\n       hub status\n"));
        addrs.registry = addr("0.0.0.0:20000");
        assert!(addrs.banner("0", "hub").contains("\n       hub status\n"));
        addrs.registry = addr("127.0.0.1:7000");
        assert!(addrs.banner("0", "hub").contains("\n       hub status --registry http://127.0.0.1:7000\n"));
        addrs.gateway = addr("0.0.0.0:7001");
        assert!(addrs.banner("0", "./hub").contains("curl 127.0.0.1:7001/visit\n"));
        assert!(
            addrs.banner("0", "./hub").contains("\n       ./hub status --registry http://127.0.0.1:7000\n")
        );
        addrs.gateway = addr("[::1]:7001");
        assert!(addrs.banner("0", "hub").contains("curl '[::1]:7001/visit'\n"), "a shell expands brackets");
        (addrs.registry, addrs.host) = (addr("[::]:20000"), Some("fd00::5".to_owned()));
        assert!(addrs.banner("0", "hub").contains("registry  http://[fd00::5]:20000\n"));
        addrs.gateway_tls = Some(addr("127.0.0.1:20443"));
        assert!(addrs.banner("0", "hub").contains("            https://127.0.0.1:20443\n"));
        assert!(!addrs.banner("0", "hub").contains("--cacert"), "certificates of others");
        addrs.authority = Some("data/tls/ca.crt".into());
        let expected = "       curl --cacert data/tls/ca.crt https://visit.localhost:20443/visit\n";
        assert!(addrs.banner("0", "hub").contains(expected));
        (addrs.more_registries, addrs.etcd) =
            (vec![addr("[::]:7")], vec!["http://a:1".into(), "http://b:1".into()]);
        let banner = addrs.banner("0", "hub");
        assert!(banner.starts_with("Hubspoke 0 is up: 3 services"), "{banner}");
        assert!(
            banner.contains("  etcd      http://a:1, http://b:1\n  registry  http://[fd00::5]:20000\n"),
            "{banner}"
        );
        assert!(banner.contains("\n  registry  http://[fd00::5]:7\n"), "{banner}");
        assert_eq!(addrs.registry_url(), "http://127.0.0.1:20000,http://127.0.0.1:7");
    }
}
