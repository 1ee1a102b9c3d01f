//! Configuration of `hub up`: the keys of every process, the tables of all four services, and `[hub]`.
//!
//! `listen` is the registry's fixed address; where the others listen stands in `[hub]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use hubspoke_chassis::boot::reachable;
use hubspoke_chassis::config::{Common, ConfigError, ConfigSource, Layers, TableDefaults};
use hubspoke_chassis::{Config, Process, Table};
use hubspoke_gateway::GatewayConfig;
use hubspoke_log::LogConfig;
use hubspoke_registry::Settings;
use hubspoke_visit::VisitConfig;
use serde::{Deserialize, Serialize};

/// What is fixed about the `hub` process.
pub const PROCESS: Process =
    Process::new("hub", env!("CARGO_PKG_VERSION")).with_listen(hubspoke_registry::PROCESS.listen);

/// The key that says where the views find the registry.
const REGISTRY_URL: &str = "registry.url";

/// Most replicas of one service in one process.
const MAX_REPLICAS: u16 = 100;

/// `[hub]`: how many of what, and where.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HubTable {
    /// Log replicas; those after the first listen on free ports.
    pub log_replicas: u16,
    /// Visit replicas; those after the first listen on free ports.
    pub visit_replicas: u16,
    /// Where the gateway listens for callers.
    pub gateway: SocketAddr,
    /// Where the gateway serves heartbeats, pushes, health and metrics.
    pub gateway_control: SocketAddr,
    /// Where the first log replica listens.
    pub log: SocketAddr,
    /// Where the first visit replica listens.
    pub visit: SocketAddr,
    /// Folder of everything that is written; each replica has a folder of its own in it.
    pub data_dir: PathBuf,
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Default for HubTable {
    fn default() -> Self {
        Self {
            log_replicas: 3,
            visit_replicas: 1,
            gateway: local(20001),
            gateway_control: local(20011),
            log: local(20002),
            visit: local(20003),
            data_dir: "data".into(),
        }
    }
}

impl Table for HubTable {
    fn check(&self) -> Result<(), (String, String)> {
        for (key, replicas) in [("log_replicas", self.log_replicas), ("visit_replicas", self.visit_replicas)]
        {
            if !(1..=MAX_REPLICAS).contains(&replicas) {
                return Err((key.to_owned(), format!("must be from 1 to {MAX_REPLICAS}")));
            }
        }
        Ok(())
    }
}

/// Everything that `hub up` needs to know.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// The keys of every process.
    pub common: Common,
    /// How many of what, and where.
    pub hub: HubTable,
    /// The registry's own.
    pub registry: Settings,
    /// The gateway's own.
    pub gateway: GatewayConfig,
    /// The log service's own.
    pub log: LogConfig,
    /// The visit service's own.
    pub visit: VisitConfig,
}

impl HubConfig {
    /// Reads the layers: defaults, `config/hub.toml`, environment. Where `registry.url` is not set, it follows
    /// `listen`, so that the views find the platform that the same settings have started.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn load(source: &ConfigSource) -> Result<(Self, Layers), ConfigError> {
        // The whole platform in one process is for trying things out, so the gateway shows every service that joins.
        let gateway = GatewayConfig::exposing_all();
        let tables = [
            TableDefaults::new(PROCESS.name, &HubTable::default())?,
            TableDefaults::new(hubspoke_registry::PROCESS.name, &Settings::default())?,
            TableDefaults::new(hubspoke_gateway::PROCESS.name, &gateway)?,
            TableDefaults::new(hubspoke_log::PROCESS.name, &LogConfig::default())?,
            TableDefaults::new(hubspoke_visit::PROCESS.name, &VisitConfig::default())?,
        ];
        let mut layers = Layers::read(&PROCESS, &tables, source)?;
        let listen = layers.common()?.listen;
        if listen.port() != 0 {
            layers = layers.with_default(REGISTRY_URL, &format!("http://{}", reachable(listen)));
        }
        for key in ["name", "advertise", "control_listen"] {
            layers.refuse(
                key,
                "hub is several services and none of its own; see listen, and the keys in [hub]",
            )?;
        }
        let config = Self {
            common: layers.common()?,
            hub: layers.table(PROCESS.name)?,
            registry: layers.table(hubspoke_registry::PROCESS.name)?,
            gateway: layers.table(hubspoke_gateway::PROCESS.name)?,
            log: layers.table(hubspoke_log::PROCESS.name)?,
            visit: layers.table(hubspoke_visit::PROCESS.name)?,
        };
        Ok((config, layers))
    }

    /// What `hub up` refuses besides: it brings its own registry, so another one's URL would do nothing.
    ///
    /// # Errors
    /// [`ConfigError`] where `registry.url` is set.
    pub fn check_up(layers: &Layers) -> Result<(), ConfigError> {
        layers.refuse(REGISTRY_URL, "hub up runs a registry of its own; listen says where")
    }

    /// The registry's configuration.
    pub fn registry(&self) -> Config<Settings> {
        let listen = self.common.listen;
        Config { common: self.common_of(hubspoke_registry::PROCESS.name, listen), own: self.registry.clone() }
    }

    /// The gateway's, as a member of the registry at `registry`.
    pub fn gateway(&self, registry: SocketAddr) -> Config<GatewayConfig> {
        let mut common = self.member(hubspoke_gateway::PROCESS.name, self.hub.gateway, registry);
        common.control_listen = Some(self.hub.gateway_control);
        Config { common, own: self.gateway.clone() }
    }

    /// That of log replica `n`, counted from 1: its file is `DATA_DIR/log-N/NAME`.
    pub fn log(&self, n: u16, registry: SocketAddr) -> Config<LogConfig> {
        let common = self.member(hubspoke_log::PROCESS.name, replica(self.hub.log, n), registry);
        let mut own = self.log.clone();
        own.file = self.own_file(&own.file, hubspoke_log::PROCESS.name, n);
        Config { common, own }
    }

    /// That of visit replica `n`, counted from 1.
    pub fn visit(&self, n: u16, registry: SocketAddr) -> Config<VisitConfig> {
        let common = self.member(hubspoke_visit::PROCESS.name, replica(self.hub.visit, n), registry);
        let mut own = self.visit.clone();
        own.file = self.own_file(&own.file, hubspoke_visit::PROCESS.name, n);
        Config { common, own }
    }

    /// A file of the same name in the replica's own folder.
    fn own_file(&self, file: &Path, service: &str, n: u16) -> PathBuf {
        let folder = self.hub.data_dir.join(format!("{service}-{n}"));
        folder.join(file.file_name().unwrap_or(service.as_ref()))
    }

    fn member(&self, name: &str, listen: SocketAddr, registry: SocketAddr) -> Common {
        let mut common = self.common_of(name, listen);
        common.registry.url = format!("http://{registry}");
        common
    }

    fn common_of(&self, name: &str, listen: SocketAddr) -> Common {
        let mut common = self.common.clone();
        name.clone_into(&mut common.name);
        common.listen = listen;
        (common.advertise, common.control_listen) = (None, None);
        common
    }
}

/// Replicas after the first listen on any free port.
fn replica(first: SocketAddr, n: u16) -> SocketAddr {
    if n == 1 { first } else { SocketAddr::new(first.ip(), 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(vars: &[(&str, &str)]) -> Result<HubConfig, String> {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let source = ConfigSource { vars, folder: "none".into(), file: None };
        HubConfig::load(&source).map(|(config, _)| config).map_err(|error| error.to_string())
    }

    #[test]
    fn each_replica_has_its_own_port_and_file() {
        let config = load(&[("HUB_HUB__DATA_DIR", "/tmp/x"), ("HUB_LOG__FILE", "a/entries.log")]).unwrap();
        let registry = local(20000);
        let (first, second) = (config.log(1, registry), config.log(2, registry));
        assert_eq!(first.common.listen, local(20002));
        assert_eq!(second.common.listen, local(0));
        assert_eq!(first.own.file, PathBuf::from("/tmp/x/log-1/entries.log"));
        assert_eq!(second.own.file, PathBuf::from("/tmp/x/log-2/entries.log"));
        assert_eq!(second.common.registry.url, "http://127.0.0.1:20000");
        assert_eq!(config.gateway(registry).common.control_listen, Some(local(20011)));
        assert_eq!(config.gateway(registry).own.expose, ["*"]);
    }

    #[test]
    fn the_commented_file_is_accepted_as_it_is_and_with_every_key_set() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
        let text = std::fs::read_to_string(folder.join("hub.toml")).unwrap();
        HubConfig::load(&ConfigSource { folder, ..ConfigSource::default() }).unwrap();
        // A line that begins with `#` and a key is a setting at its default; `# ` begins a sentence.
        let setting =
            |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).map(str::to_owned);
        let all: Vec<String> =
            text.lines().map(|line| setting(line).unwrap_or_else(|| line.to_owned())).collect();
        let whole = tempfile::tempdir().unwrap();
        std::fs::write(whole.path().join("hub.toml"), all.join("\n")).unwrap();
        let source = ConfigSource { folder: whole.path().to_owned(), ..ConfigSource::default() };
        assert_eq!(HubConfig::load(&source).unwrap().0.hub.log_replicas, 3);
    }

    #[test]
    fn the_views_look_where_the_same_settings_listen() {
        let url = |vars: &[(&str, &str)]| load(vars).unwrap().common.registry.url;
        assert_eq!(url(&[]), "http://127.0.0.1:20000");
        assert_eq!(url(&[("HUB_LISTEN", "127.0.0.1:7000")]), "http://127.0.0.1:7000");
        assert_eq!(url(&[("HUB_LISTEN", "[::]:7000")]), "http://[::1]:7000");
        assert_eq!(url(&[("HUB_LISTEN", "127.0.0.1:0")]), "http://127.0.0.1:20000", "any port is none");
        let both = [("HUB_LISTEN", "127.0.0.1:7000"), ("HUB_REGISTRY__URL", "http://r:1")];
        assert_eq!(url(&both), "http://r:1");
    }

    #[test]
    fn keys_that_would_do_nothing_are_refused() {
        for (name, value) in
            [("HUB_NAME", "x"), ("HUB_ADVERTISE", "x:1"), ("HUB_CONTROL_LISTEN", "127.0.0.1:1")]
        {
            let error = load(&[(name, value)]).unwrap_err();
            assert_eq!(
                error,
                format!(
                    "{name}: hub is several services and none of its own; see listen, and the keys in [hub]"
                )
            );
        }
    }

    #[test]
    fn replica_counts_are_bounded() {
        for replicas in ["0", "101"] {
            let error = load(&[("HUB_HUB__LOG_REPLICAS", replicas)]).unwrap_err();
            assert_eq!(error, "HUB_HUB__LOG_REPLICAS: must be from 1 to 100");
        }
    }
}
