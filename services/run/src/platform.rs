//! The platform that programs join: its registry, where its gateway is, and its log instances.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hubspoke_client::log::{LOG_SERVICE, LogQueue};
use hubspoke_client::membership::RegistryUrls;
use hubspoke_client::{Directory, HttpClientError, LogClient, MemberCredentials, Token};
use hubspoke_protocol::{CatalogView, SERVICES_PATH, ServiceInfo, ServiceLists};
use parking_lot::Mutex;
use reqwest::redirect::Policy;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

/// How often log instances and the gateway are looked up.
const REFRESH: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(2);
/// Memory for the entries of one replica that wait to be sent, in bytes.
const LOG_QUEUE: usize = 4 << 20;
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 4 << 20;
/// The name under which gateways register.
const GATEWAY: &str = "gateway";

/// The addresses of the platform.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PlatformConfig {
    /// Base URL of the registry, or several separated by commas.
    pub registry: String,
    /// Token for registering.
    pub token: Option<Token>,
    /// The file that it comes from, if it does.
    pub token_file: Option<PathBuf>,
    /// The host that members which listen on all addresses register.
    pub advertise_host: Option<String>,
    /// Collector for traces and metrics, handed to programs.
    pub otlp_endpoint: Option<String>,
}

impl PlatformConfig {
    /// The base URLs of the registries. Empty if they are invalid.
    fn urls(&self) -> Vec<String> {
        let urls = RegistryUrls::parse(&self.registry);
        urls.map(|urls| urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect())
            .unwrap_or_default()
    }

    /// The registry at a URL, without a token.
    pub fn new(registry: impl Into<String>) -> Self {
        Self {
            registry: registry.into(),
            token: None,
            token_file: None,
            advertise_host: None,
            otlp_endpoint: None,
        }
    }
}

/// A platform. Clones share it.
#[derive(Debug, Clone)]
pub struct Platform {
    pub(crate) config: Arc<PlatformConfig>,
    directory: Directory,
    gateway: Arc<Mutex<Option<String>>>,
    http: reqwest::Client,
    _refresh: Arc<AbortOnDropHandle<()>>,
}

/// The addresses of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostAddrs {
    /// The program is to listen here: `HOST`.
    pub(crate) listen: String,
    /// Others find it at this host.
    pub(crate) advertise: String,
    /// Its readiness is probed here, and its control port is here.
    pub(crate) local: IpAddr,
}

impl Platform {
    /// Looks up where gateway and log are, and does so again every 2 s while it lives.
    ///
    /// # Errors
    /// [`HttpClientError`] if the HTTP client can't be created.
    pub async fn connect(config: PlatformConfig) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder().no_proxy().redirect(Policy::none()).timeout(TIMEOUT).build()?;
        let (directory, gateway) = (Directory::default(), Arc::default());
        let lookup = Lookup {
            urls: config.urls(),
            http: http.clone(),
            directory: directory.clone(),
            gateway: Arc::clone(&gateway),
        };
        lookup.refresh().await;
        let refresh = tokio::spawn(async move {
            loop {
                sleep(REFRESH).await;
                lookup.refresh().await;
            }
        });
        let _refresh = Arc::new(AbortOnDropHandle::new(refresh));
        Ok(Self { config: Arc::new(config), directory, gateway, http, _refresh })
    }

    /// Base URL of a gateway, if one is registered.
    pub(crate) fn gateway(&self) -> Option<String> {
        self.gateway.lock().clone()
    }

    /// A client for instances: no proxy, no redirects, 2 s.
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// A queue of entries in the name of an instance.
    ///
    /// # Errors
    /// [`HttpClientError`].
    pub(crate) fn log_queue(&self, sender: &ServiceInfo) -> Result<LogQueue, HttpClientError> {
        let credentials =
            MemberCredentials { token: self.config.token.clone(), ..MemberCredentials::default() };
        let client = LogClient::with_credentials(self.directory.clone(), sender, credentials)?;
        Ok(LogQueue::start(client, LOG_QUEUE))
    }

    /// The addresses for a program that is told to listen on `host`. By default it is loopback if the registry is there,
    /// and otherwise all addresses, of which the one towards the registry is registered.
    ///
    /// # Errors
    /// If the registry's name can't be resolved, or there is no route to it.
    pub(crate) async fn host_addrs(&self, host: Option<&str>) -> io::Result<HostAddrs> {
        let loopback = || IpAddr::V4(Ipv4Addr::LOCALHOST);
        let local_registry = || self.registry_host().is_some_and(|host| is_loopback(&host));
        let listen = match host {
            Some(host) => host.to_owned(),
            None if local_registry() => loopback().to_string(),
            None => Ipv4Addr::UNSPECIFIED.to_string(),
        };
        let ip = listen.trim_matches(['[', ']']).parse::<IpAddr>();
        let wildcard = ip.as_ref().is_ok_and(IpAddr::is_unspecified);
        let (advertise, local) = match (ip, &self.config.advertise_host) {
            (_, Some(host)) if wildcard => (host.clone(), loopback()),
            _ if wildcard && local_registry() => (loopback().to_string(), loopback()),
            _ if wildcard => {
                let ip = self.ip_towards_registry().await?;
                (ip.to_string(), ip)
            }
            (Ok(ip), _) => (ip.to_string(), ip),
            (Err(_), _) => {
                let found = lookup_host((listen.as_str(), 0)).await?.next();
                let ip = found.ok_or_else(|| io::Error::other(format!("{listen} has no address")))?.ip();
                (listen.clone(), ip)
            }
        };
        Ok(HostAddrs { listen, advertise, local })
    }

    /// The host of the first registry.
    fn registry_host(&self) -> Option<String> {
        let url = self.config.urls().first()?.parse::<reqwest::Url>().ok()?;
        Some(url.host_str()?.trim_matches(['[', ']']).to_owned())
    }

    /// The local address from which a registry is reached.
    async fn ip_towards_registry(&self) -> io::Result<IpAddr> {
        let mut failed = io::Error::other("no registry is known");
        for url in self.config.urls() {
            match ip_towards(&url).await {
                Ok(ip) => return Ok(ip),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

async fn ip_towards(url: &str) -> io::Result<IpAddr> {
    let url = url.parse::<reqwest::Url>().map_err(io::Error::other)?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let mut failed = io::Error::other(format!("{host} has no address"));
    for addr in lookup_host((host, url.port_or_known_default().unwrap_or(80))).await? {
        let any: IpAddr =
            if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
        match socket.connect(addr).await.and_then(|()| socket.local_addr()) {
            Ok(local) => return Ok(local.ip()),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// `host:port`, with brackets if the host is an IPv6 address.
pub(crate) fn host_port(host: &str, port: u16) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(ip) => SocketAddr::from((ip, port)).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

struct Lookup {
    urls: Vec<String>,
    http: reqwest::Client,
    directory: Directory,
    gateway: Arc<Mutex<Option<String>>>,
}

impl Lookup {
    /// Anything that can't be found out stays as it was.
    async fn refresh(&self) {
        let (log, gateway) = tokio::join!(self.instances(LOG_SERVICE), self.instances(GATEWAY));
        if let Some(log) = log {
            self.directory.replace(ServiceLists([(LOG_SERVICE.to_owned(), log)].into()));
        }
        if let Some(gateway) = gateway.and_then(|gateways| gateways.into_iter().next()) {
            *self.gateway.lock() = Some(format!("http://{}", gateway.addr));
        }
    }

    /// Asks the registries one after the other.
    async fn instances(&self, service: &str) -> Option<Vec<ServiceInfo>> {
        for url in &self.urls {
            if let Some(instances) = self.instances_at(url, service).await {
                return Some(instances);
            }
        }
        None
    }

    async fn instances_at(&self, url: &str, service: &str) -> Option<Vec<ServiceInfo>> {
        let mut response = self.http.get(format!("{url}{SERVICES_PATH}/{service}")).send().await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.ok()? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return None;
            }
            body.extend_from_slice(&chunk);
        }
        let mut view: CatalogView = serde_json::from_slice(&body).ok()?;
        let instances = view.services.remove(service).unwrap_or_default();
        let usable = instances
            .into_iter()
            .filter(|instance| instance.state != hubspoke_protocol::InstanceState::Removed);
        Some(usable.map(|instance| ServiceInfo { state: Some(instance.state), ..instance.info }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn programs_listen_on_loopback_if_the_registry_is_there() {
        let platform = Platform::connect(PlatformConfig::new("http://127.0.0.1:9")).await.unwrap();
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let addrs = |listen: &str, advertise: &str, local: IpAddr| HostAddrs {
            listen: listen.to_owned(),
            advertise: advertise.to_owned(),
            local,
        };
        assert_eq!(platform.host_addrs(None).await.unwrap(), addrs("127.0.0.1", "127.0.0.1", local));
        assert_eq!(platform.host_addrs(Some("0.0.0.0")).await.unwrap(), addrs("0.0.0.0", "127.0.0.1", local));
        let other = "127.1.2.3".parse().unwrap();
        assert_eq!(
            platform.host_addrs(Some("127.1.2.3")).await.unwrap(),
            addrs("127.1.2.3", "127.1.2.3", other)
        );
        assert_eq!(host_port("::1", 80), "[::1]:80");
        assert!(is_loopback("::ffff:127.0.0.1") && is_loopback("localhost") && !is_loopback("registry"));
    }
}
