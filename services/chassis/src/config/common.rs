use std::fmt;
use std::net::{AddrParseError, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hubspoke_client::Token;
use hubspoke_client::log::{FewerCopies, LogCopies, MAX_COPIES};
use hubspoke_client::membership::RegistryUrls;
use hubspoke_protocol::{IDENTITY_DOMAIN, InvalidAddr, RESERVED_NAMES, check_addr, check_host, check_name};
use hubspoke_tls::{CertFiles, Identity, IdentityFiles};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use super::error::ConfigError;
use super::process::Process;
use super::secret::Secret;

/// The registry that is joined by default, without `http` or, with `[tls]`, `https`.
pub(super) const DEFAULT_REGISTRY: &str = "://127.0.0.1:20000";
/// Why `[tls]` is invalid.
const PARTLY_SET: &str = "cert, key and ca must be set together";

/// The keys that every process has.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Common {
    /// The registered name; the service's public routes are below it.
    pub name: String,
    /// Address to bind.
    pub listen: SocketAddr,
    /// `host:port` to register. Unset: the bound address or, if that is a wildcard, the local address from which the
    /// registry is reached.
    pub advertise: Option<String>,
    /// The host of the addresses to register, with the ports that are bound: a name, or an IPv4 or IPv6 address, which
    /// needs no brackets.
    pub advertise_host: Option<String>,
    /// Address for heartbeats, pushes, health and metrics. Unset: `listen`.
    pub control_listen: Option<SocketAddr>,
    /// Address that serves `/metrics` and nothing else, so that whoever may scrape may do nothing else. Unset: `/metrics`
    /// is beside health.
    pub metrics_listen: Option<SocketAddr>,
    /// Names under which web pages may reach this process, beside its own. `*.SUFFIX` is all names below; `*` is any.
    pub allowed_hosts: Vec<String>,
    /// Connections to one port at once; half as many HTTP/2 requests may be in flight. Further ones replace idle
    /// connections.
    pub max_connections: usize,
    /// How long requests in flight may take at shutdown.
    #[serde(with = "humantime_serde")]
    pub shutdown_grace: Duration,
    /// The registry to join.
    pub registry: RegistryLink,
    /// The tokens of subjects that may call this process.
    pub access: AccessSettings,
    /// The certificate of this process, for mutual TLS with everything inside.
    pub tls: IdentitySettings,
    /// How entries are sent to the log service.
    pub log_client: LogSending,
    /// Logs, traces and metrics.
    pub telemetry: Telemetry,
}

/// The registry to join, and the credentials for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RegistryLink {
    /// Base URL, or several separated by commas: any of them is asked, and if it fails the next one.
    pub url: String,
    /// Bearer token for registering.
    pub token: Option<Secret>,
    /// A file that contains the token.
    pub token_file: Option<PathBuf>,
}

/// The tokens of subjects that may call this process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct AccessSettings {
    /// The tokens that are accepted, as hashes, one a line; `hub token` writes it. It is read again when it changes. The
    /// registry and the log service ask for tokens.
    pub tokens_file: Option<PathBuf>,
}

/// The certificate of this process, for mutual TLS with everything inside. All three files or none; they are read again
/// when they change.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct IdentitySettings {
    /// The certificate, followed by its chain. Its name is a URI: `spiffe://hubspoke/NAME`, or several.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The authorities that are trusted: one certificate, or the old and the new one during a change.
    pub ca: Option<PathBuf>,
}

impl IdentitySettings {
    /// Whether mutual TLS is on.
    pub fn is_on(&self) -> bool {
        self.cert.is_some()
    }

    /// Reads and checks the files, if they are set.
    ///
    /// # Errors
    /// If one of them can't be used, or only some are set.
    pub fn open(&self) -> Result<Option<Arc<Identity>>, ConfigError> {
        let (cert, key, ca) = match (&self.cert, &self.key, &self.ca) {
            (None, None, None) => return Ok(None),
            (Some(cert), Some(key), Some(ca)) => (cert.clone(), key.clone(), ca.clone()),
            _ => return Err(ConfigError::new(format!("tls: {PARTLY_SET}"))),
        };
        let files = IdentityFiles { own: CertFiles { cert, key, may_be_missing: false }, ca };
        let opened = Identity::open(files, IDENTITY_DOMAIN);
        opened.map(Some).map_err(|error| ConfigError::new(format!("tls: {error}")))
    }
}

/// How entries are sent to the log service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LogSending {
    /// Log instances that store an entry, each on its own disk, before it is acknowledged: from 1 to 4.
    pub copies: usize,
    /// The fate of an entry that fewer can store: `refuse` or `accept`.
    pub fewer_copies: FewerCopies,
}

impl LogSending {
    /// The copies, for a [`LogClient`](hubspoke_client::LogClient).
    pub fn copies(&self) -> LogCopies {
        LogCopies::new(self.copies, self.fewer_copies)
    }
}

/// Logs, traces and metrics of the process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Telemetry {
    /// An env-filter: `info`, or `hubspoke_gateway=debug,warn`.
    pub log: String,
    /// OTLP collector for traces, metrics and logs (http/protobuf): `http://collector:4318`. Unset: nothing is
    /// exported. The standard variables, `OTEL_EXPORTER_OTLP_ENDPOINT` and the others, take precedence.
    pub otlp_endpoint: Option<String>,
    /// Share of heartbeats, pushes and renewals that are traced, from 0 to 1.
    pub heartbeat_traces: f64,
}

impl Common {
    /// The defaults of a kind of process.
    ///
    /// # Errors
    /// If an address in `process` is invalid.
    pub fn of(process: &Process) -> Result<Self, AddrParseError> {
        Ok(Self {
            name: process.name.to_owned(),
            listen: process.listen.parse()?,
            advertise: None,
            advertise_host: None,
            control_listen: process.control_listen.map(str::parse).transpose()?,
            metrics_listen: None,
            allowed_hosts: Vec::new(),
            max_connections: 1024,
            shutdown_grace: Duration::from_secs(10),
            registry: RegistryLink { url: format!("http{DEFAULT_REGISTRY}"), token: None, token_file: None },
            access: AccessSettings::default(),
            tls: IdentitySettings::default(),
            log_client: LogSending { copies: 1, fewer_copies: FewerCopies::Refuse },
            telemetry: Telemetry { log: "info".to_owned(), otlp_endpoint: None, heartbeat_traces: 0.01 },
        })
    }

    /// A name or an address without a port, `*.SUFFIX`, or `*`.
    fn check_allowed_host(host: &str) -> Result<(), InvalidAddr> {
        if host == "*" { Ok(()) } else { check_host(host.strip_prefix("*.").unwrap_or(host)) }
    }

    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let at = |key: &str, why: &dyn fmt::Display| (key.to_owned(), why.to_string());
        let Self { name, registry, telemetry, .. } = self;
        check_name(name).map_err(|error| at("name", &error))?;
        if RESERVED_NAMES.contains(&name.as_str()) {
            return Err(at("name", &format_args!("{name:?} is reserved for the platform's own routes")));
        }
        for host in &self.allowed_hosts {
            Self::check_allowed_host(host).map_err(|why| at("allowed_hosts", &why))?;
        }
        if self.max_connections == 0 {
            return Err(at("max_connections", &"must be at least 1"));
        }
        if let Some(addr) = &self.advertise {
            let host = "a host alone is set as advertise_host";
            check_addr(addr).map_err(|error| at("advertise", &format_args!("{error}; {host}")))?;
        }
        if let Some(host) = &self.advertise_host {
            check_host(host).map_err(|error| at("advertise_host", &error))?;
            if self.advertise.is_some() {
                return Err(at("advertise_host", &"advertise is set too; remove one of them"));
            }
        }
        let set = [&self.tls.cert, &self.tls.key, &self.tls.ca].map(Option::is_some);
        if set != [set[0]; 3] {
            return Err(at("tls", &PARTLY_SET));
        }
        let urls = RegistryUrls::parse(&registry.url).map_err(|error| at("registry.url", &error))?;
        urls.check_tls(self.tls.is_on()).map_err(|error| at("registry.url", &error))?;
        if registry.token.is_some() && registry.token_file.is_some() {
            return Err(at("registry.token_file", &"registry.token is set too; remove one of them"));
        }
        if !(1..=MAX_COPIES).contains(&self.log_client.copies) {
            return Err(at("log_client.copies", &format_args!("must be from 1 to {MAX_COPIES}")));
        }
        if !(0.0..=1.0).contains(&telemetry.heartbeat_traces) {
            return Err(at("telemetry.heartbeat_traces", &"must be from 0 to 1"));
        }
        let filter = EnvFilter::builder().parse(&telemetry.log);
        filter.map(drop).map_err(|error| at("telemetry.log", &error))
    }
}

impl RegistryLink {
    /// The token, from the key or the file, without surrounding white space. That in a file is read again when it is
    /// used.
    ///
    /// # Errors
    /// If the file can't be read or is empty, or the token can't be sent in a header.
    pub fn read_token(&self) -> Result<Option<Token>, ConfigError> {
        if let Some(file) = &self.token_file {
            let failed = |error| ConfigError::new(format!("registry.token_file {}: {error}", file.display()));
            return Token::in_file(file).map(Some).map_err(failed);
        }
        let token = self.token.as_ref().map(|token| Token::fixed(token.expose())).transpose();
        token.map_err(|error| ConfigError::new(format!("registry.token: {error}")))
    }
}

/// Puts the brackets around an IPv6 address that was joined with a port: `$(POD_IP):20002` on an IPv6 cluster. Text
/// that may as well be an address without a port is left unchanged.
pub(super) fn with_brackets(addr: String) -> String {
    let is_v6 = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    match addr.rsplit_once(':') {
        Some((host, port)) if is_v6(host) && !is_v6(&addr) => format!("[{host}]:{port}"),
        _ => addr,
    }
}
