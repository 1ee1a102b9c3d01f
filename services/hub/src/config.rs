//! Configuration of `hub up`: the keys of every process, the tables of all four services, and `[hub]`.
//!
//! `listen` is the registry's fixed address; the others' addresses are in `[hub]`.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use hubspoke_chassis::boot::reachable;
use hubspoke_chassis::config::{Common, ConfigError, ConfigSource, Layers, Secret, TableDefaults};
use hubspoke_chassis::rights::random_token;
use hubspoke_chassis::{Config, Process, Table};
use hubspoke_client::membership::default_route_ip;
use hubspoke_gateway::GatewayConfig;
use hubspoke_log::LogConfig;
use hubspoke_registry::Settings;
use hubspoke_registry::config::StoreKind;
use hubspoke_visit::{CountStorage, VisitConfig};
use serde::{Deserialize, Serialize};

use crate::cert::authority::Host;

/// The constants of the `hub` process.
pub const PROCESS: Process =
    Process::new("hub", env!("CARGO_PKG_VERSION")).with_listen(hubspoke_registry::PROCESS.listen);

/// The key for the registry that the other commands talk to.
const REGISTRY_URL: &str = "registry.url";

/// The port of the gateway for TLS.
const TLS_PORT: u16 = 20443;

/// Most replicas of one service in one process.
const MAX_REPLICAS: u16 = 100;
/// Most registries: as many as a member takes.
const MAX_REGISTRIES: u16 = 16;

/// `[hub]`: replicas and addresses.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct HubTable {
    /// Registries; those after the first listen on free ports. Several need `registry.store = "etcd"`.
    pub registries: u16,
    /// Log replicas; those after the first listen on free ports.
    pub log_replicas: u16,
    /// Visit replicas; those after the first listen on free ports.
    pub visit_replicas: u16,
    /// Address at which the gateway listens for clients.
    pub gateway: SocketAddr,
    /// Address at which the gateway serves heartbeats, pushes, health and metrics.
    pub gateway_control: SocketAddr,
    /// Address of the first log replica.
    pub log: SocketAddr,
    /// Address of the first visit replica.
    pub visit: SocketAddr,
    /// Whether the gateway also speaks TLS, with certificates of its own making, in `data_dir`.
    pub tls: bool,
    /// Whether to listen on addresses that other machines reach although no tokens are required.
    pub insecure: bool,
    /// Directory for all files; each replica has a subdirectory.
    pub data_dir: PathBuf,
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Default for HubTable {
    fn default() -> Self {
        Self {
            registries: 1,
            log_replicas: 3,
            visit_replicas: 1,
            gateway: local(20001),
            gateway_control: local(20011),
            log: local(20002),
            visit: local(20003),
            tls: false,
            insecure: false,
            data_dir: "data".into(),
        }
    }
}

impl Table for HubTable {
    fn check(&self) -> Result<(), (String, String)> {
        for (key, replicas, max) in [
            ("registries", self.registries, MAX_REGISTRIES),
            ("log_replicas", self.log_replicas, MAX_REPLICAS),
            ("visit_replicas", self.visit_replicas, MAX_REPLICAS),
        ] {
            if !(1..=max).contains(&replicas) {
                return Err((key.to_owned(), format!("must be from 1 to {max}")));
            }
        }
        Ok(())
    }
}

/// The whole configuration.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HubConfig {
    /// The keys of every process.
    pub common: Common,
    /// Replicas and addresses.
    pub hub: HubTable,
    /// The registry's table.
    pub registry: Settings,
    /// The gateway's table.
    pub gateway: GatewayConfig,
    /// The log service's table.
    pub log: LogConfig,
    /// The visit service's table.
    pub visit: VisitConfig,
    /// The host that members which listen on a wildcard register if none is set.
    local_host: Option<String>,
    /// The token of the services in this process, if a tokens file is set and no token. Nobody else knows it.
    own_token: Secret,
}

impl HubConfig {
    /// Reads the layers: defaults, `config/hub.toml`, environment. The default of `registry.url` follows
    /// `listen`, so that commands with the same settings find the platform that `hub up` started; the addresses of the
    /// other services have the same host by default.
    ///
    /// # Errors
    /// [`ConfigError`] for the first invalid setting.
    pub fn load(source: &ConfigSource) -> Result<(Self, Layers), ConfigError> {
        // `hub up` is for trying things out, so the gateway exposes every service that joins.
        let gateway = GatewayConfig::exposing_all();
        // The count goes on where the entries beside it do.
        let visit = VisitConfig::in_file();
        let tables = [
            TableDefaults::new(PROCESS.name, &HubTable::default())?,
            TableDefaults::new(hubspoke_registry::PROCESS.name, &Settings::in_one_process())?,
            TableDefaults::new(hubspoke_gateway::PROCESS.name, &gateway)?,
            TableDefaults::new(hubspoke_log::PROCESS.name, &LogConfig::default())?,
            TableDefaults::new(hubspoke_visit::PROCESS.name, &visit)?,
        ];
        let mut layers = Layers::read(&PROCESS, &tables, source)?;
        let Common { listen, tls, .. } = layers.common()?;
        if listen.port() != 0 {
            let url = format!("{}://{}", scheme(tls.is_on()), reachable(listen));
            layers = layers.with_default(REGISTRY_URL, &url);
        }
        // A registry for other machines is of no use to them without the others.
        let HubTable { gateway, gateway_control, log, visit, .. } = HubTable::default();
        for (key, default) in
            [("gateway", gateway), ("gateway_control", gateway_control), ("log", log), ("visit", visit)]
        {
            let addr = SocketAddr::new(listen.ip(), default.port());
            layers = layers.with_default(&format!("{}.{key}", PROCESS.name), &addr.to_string());
        }
        for (key, instead) in [
            ("name", "[hub]"),
            ("advertise", "advertise_host"),
            ("control_listen", "listen and [hub]"),
            ("metrics_listen", "listen and [hub]"),
        ] {
            let why = format!("has no meaning for hub, which runs several services; set {instead} instead");
            layers.refuse(key, &why)?;
        }
        let config = Self {
            common: layers.common()?,
            hub: layers.table(PROCESS.name)?,
            registry: layers.table(hubspoke_registry::PROCESS.name)?,
            gateway: layers.table(hubspoke_gateway::PROCESS.name)?,
            log: layers.table(hubspoke_log::PROCESS.name)?,
            visit: layers.table(hubspoke_visit::PROCESS.name)?,
            local_host: None,
            own_token: Secret::new(random_token()),
        };
        Ok((config, layers))
    }

    /// Sets the host that the members register, if they listen on a wildcard and none is set: the address of this
    /// machine's default route. Towards the registry, which is on the same machine, they would find 127.0.0.1.
    pub async fn choose_advertise_host(&mut self) {
        let HubTable { gateway, log, visit, .. } = self.hub;
        let wildcard = [gateway, log, visit].into_iter().find(|addr| addr.ip().is_unspecified());
        if let (None, Some(wildcard)) = (&self.common.advertise_host, wildcard) {
            let ip = default_route_ip().await.filter(|ip| ip.is_ipv4() || wildcard.is_ipv6());
            self.local_host = ip.map(|ip| ip.to_string());
        }
    }

    /// The host that members which listen on a wildcard register.
    pub fn advertise_host(&self) -> Option<&str> {
        self.common.advertise_host.as_deref().or(self.local_host.as_deref())
    }

    /// Refuses keys that only `hub up` refuses: it runs a registry, so the URL of another one would have no effect.
    ///
    /// # Errors
    /// [`ConfigError`] if `registry.url` is set.
    pub fn check_up(layers: &Layers) -> Result<(), ConfigError> {
        layers.refuse(REGISTRY_URL, "hub up runs its own registry; set listen to choose its address")
    }

    /// Keeps the catalogue and the count of visits in etcd, at these URLs.
    ///
    /// # Errors
    /// [`ConfigError`] if they can't be used.
    pub fn use_etcd(&mut self, endpoints: &[String]) -> Result<(), ConfigError> {
        (self.registry.store, self.visit.state) = (StoreKind::Etcd, CountStorage::Etcd);
        for etcd in [&mut self.registry.etcd, &mut self.visit.etcd] {
            etcd.endpoints = endpoints.to_vec();
        }
        let checked = self.registry.etcd.check_in_use();
        checked
            .map_err(|invalid| ConfigError::new(format!("--etcd: etcd.{}: {}", invalid.key, invalid.reason)))
    }

    /// Refuses several registries that would each have a catalogue of its own.
    ///
    /// # Errors
    /// [`ConfigError`] if they do not share an etcd.
    pub fn check_registries(&self) -> Result<(), ConfigError> {
        if self.hub.registries == 1 || self.registry.store == StoreKind::Etcd {
            return Ok(());
        }
        Err(ConfigError::new(format!(
            "{} registries (hub.registries) share their catalogue in etcd: name one with --etcd URL, or set \
             registry.store = \"etcd\" and etcd.endpoints",
            self.hub.registries
        )))
    }

    /// The URLs of etcd, if the catalogue is in it.
    pub fn etcd(&self) -> &[String] {
        match self.registry.store {
            StoreKind::Etcd => &self.registry.etcd.endpoints,
            StoreKind::Memory => &[],
        }
    }

    /// Whether requests that change the catalogue or read entries require a token.
    pub fn requires_tokens(&self) -> bool {
        let Common { registry, access, .. } = &self.common;
        registry.token.is_some() || registry.token_file.is_some() || access.tokens_file.is_some()
    }

    /// Refuses to serve other machines without tokens, unless that is what the operator wants.
    ///
    /// # Errors
    /// [`ConfigError`] for the first address that is not a loopback address.
    pub fn check_exposure(&self, layers: &Layers) -> Result<(), ConfigError> {
        if self.hub.insecure || self.requires_tokens() || self.common.tls.is_on() {
            return Ok(());
        }
        let HubTable { gateway, gateway_control, log, visit, .. } = self.hub;
        let tls = self.gateway_tls_listen().map(|addr| ("gateway.tls.listen", addr));
        let addrs = [
            ("listen", self.common.listen),
            ("hub.gateway", gateway),
            ("hub.gateway_control", gateway_control),
            ("hub.log", log),
            ("hub.visit", visit),
        ];
        match addrs.into_iter().chain(tls).find(|(_, addr)| !addr.ip().to_canonical().is_loopback()) {
            None => Ok(()),
            Some((key, addr)) => Err(layers.error_at(
                key,
                &format!(
                    "other machines reach {addr}, and without tokens each of them may register services and read all \
                     log entries; make tokens with `hub token new --operator --file FILE` and set access.tokens_file, \
                     or pass --insecure"
                ),
            )),
        }
    }

    /// The configuration of registry `n`, counted from 1. The first one keeps the snapshot file.
    pub fn registry(&self, n: u16) -> Config<Settings> {
        let listen = replica_addr(self.common.listen, n);
        let mut own = self.registry.clone();
        if n == 1 {
            // Members that know only the core protocol do not come back by themselves.
            own.data_dir.get_or_insert_with(|| self.hub.data_dir.join(hubspoke_registry::PROCESS.name));
        } else {
            own.data_dir = None;
        }
        Config { common: self.common_of(hubspoke_registry::PROCESS.name, listen), own }
    }

    /// The gateway's configuration, as a member of the registries at `registry`, URLs separated by commas.
    pub fn gateway(&self, registry: &str) -> Config<GatewayConfig> {
        let mut common = self.member(hubspoke_gateway::PROCESS.name, self.hub.gateway, registry);
        common.control_listen = Some(self.hub.gateway_control);
        let mut own = self.gateway.clone();
        own.tls.listen = self.gateway_tls_listen();
        if self.makes_certificates() {
            own.tls.certs = vec![self.tls_dir().join(hubspoke_gateway::PROCESS.name)];
        }
        Config { common, own }
    }

    /// Where the gateway listens for TLS, if it does.
    fn gateway_tls_listen(&self) -> Option<SocketAddr> {
        let default = || SocketAddr::new(self.hub.gateway.ip(), TLS_PORT);
        self.gateway.tls.listen.or_else(|| self.hub.tls.then(default))
    }

    /// Whether the gateway's certificates are those that `hub up` makes.
    pub fn makes_certificates(&self) -> bool {
        self.hub.tls && self.gateway.tls.certs.is_empty()
    }

    /// The folder of the certificates that `hub up` makes.
    pub fn tls_dir(&self) -> PathBuf {
        self.hub.data_dir.join("tls")
    }

    /// The hosts by which clients reach the gateway.
    pub(crate) fn gateway_hosts(&self) -> BTreeSet<Host> {
        let ip = self.hub.gateway.ip();
        let own = (!ip.is_unspecified()).then(|| ip.to_string());
        let below = self.gateway.domain.iter().flat_map(|domain| [domain.clone(), format!("*.{domain}")]);
        let known = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let hosts = known.into_iter().chain(own).chain(self.advertise_host().map(str::to_owned)).chain(below);
        // What is not a valid name here is refused where it is configured.
        hosts.chain(self.gateway.hosts.iter().cloned()).filter_map(|host| host.parse().ok()).collect()
    }

    /// The configuration of log replica `n`, counted from 1. Its file is `DATA_DIR/log-N/NAME`.
    pub fn log(&self, n: u16, registry: &str) -> Config<LogConfig> {
        let common = self.member(hubspoke_log::PROCESS.name, replica_addr(self.hub.log, n), registry);
        let mut own = self.log.clone();
        own.file = self.replica_file(&own.file, hubspoke_log::PROCESS.name, n);
        Config { common, own }
    }

    /// The configuration of visit replica `n`, counted from 1. Its file is `DATA_DIR/visit-N/NAME`.
    pub fn visit(&self, n: u16, registry: &str) -> Config<VisitConfig> {
        let common = self.member(hubspoke_visit::PROCESS.name, replica_addr(self.hub.visit, n), registry);
        let mut own = self.visit.clone();
        own.file = self.replica_file(&own.file, hubspoke_visit::PROCESS.name, n);
        Config { common, own }
    }

    /// The file of the same name in the replica's directory.
    fn replica_file(&self, file: &Path, service: &str, n: u16) -> PathBuf {
        let dir = self.hub.data_dir.join(format!("{service}-{n}"));
        dir.join(file.file_name().unwrap_or(service.as_ref()))
    }

    fn member(&self, name: &str, listen: SocketAddr, registry: &str) -> Common {
        let mut common = self.common_of(name, listen);
        registry.clone_into(&mut common.registry.url);
        common
    }

    fn common_of(&self, name: &str, listen: SocketAddr) -> Common {
        let mut common = self.common.clone();
        if listen.ip().is_unspecified() {
            common.advertise_host = self.advertise_host().map(str::to_owned);
        }
        if common.access.tokens_file.is_some() && common.registry.token_file.is_none() {
            common.registry.token.get_or_insert_with(|| self.own_token.clone());
        }
        name.clone_into(&mut common.name);
        common.listen = listen;
        (common.advertise, common.control_listen) = (None, None);
        common
    }
}

/// The scheme of URLs inside the platform.
pub(crate) fn scheme(is_tls: bool) -> &'static str {
    if is_tls { "https" } else { "http" }
}

/// Replicas after the first listen on a free port.
fn replica_addr(first: SocketAddr, n: u16) -> SocketAddr {
    if n == 1 { first } else { SocketAddr::new(first.ip(), 0) }
}
