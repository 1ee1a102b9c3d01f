//! Configuration: defaults, then a TOML file, then the environment (`HUB_…`, `__` between levels).
//!
//! A process has the keys of [`Common`] at the top and one table of its own, named like the service; the `hub`
//! command has the tables of all. Unknown keys and wrong values are errors that name the file or the variable.
//! Nothing here touches the process's environment or the network: a [`Source`] brings both in as values.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hubspoke_client::membership::is_registry_url;
use hubspoke_protocol::{RESERVED_NAMES, check_addr, check_name};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use tracing_subscriber::EnvFilter;

pub use self::layers::{ConfigError, Layers, Source, defaults_of};

mod env;
mod layers;
mod show;

/// What is fixed about a kind of process: what `--version` and the defaults say.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    /// Name of the service, the binary, the config file and the config table.
    pub name: &'static str,
    /// Default of `listen`.
    pub listen: &'static str,
    /// Default of `control_listen`, for a service that keeps its public port free of control routes.
    pub control_listen: Option<&'static str>,
    /// The package's version.
    pub version: &'static str,
}

/// A process's whole configuration.
#[derive(Debug, Clone)]
pub struct Config<T> {
    /// The keys that every process has.
    pub common: Common,
    /// The service's own table.
    pub own: T,
}

/// A service's own table. Derive `Serialize`, `Deserialize` (with `deny_unknown_fields` and `default`) and
/// `Default`; every field must show in the serialised default, `None` as `null`.
pub trait Table: Serialize + DeserializeOwned + Default {
    /// What types can't say: ranges, and keys that exclude each other.
    ///
    /// # Errors
    /// The key below the table, and what is wrong with its value.
    fn check(&self) -> Result<(), (String, String)> {
        Ok(())
    }
}

/// The table of a service without settings of its own.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NoTable {}

impl Table for NoTable {}

/// The keys that every process has.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Common {
    /// The registered name; the service's public routes live under it.
    pub name: String,
    /// What the service binds.
    pub listen: SocketAddr,
    /// `host:port` that the service registers. Unset: the bound address, or where that is a wildcard, the local
    /// address of a socket connected towards the registry.
    pub advertise: Option<String>,
    /// Where heartbeats, pushes, health and metrics are served, if not on `listen`.
    pub control_listen: Option<SocketAddr>,
    /// How long requests in flight may take at shutdown.
    #[serde(with = "humantime_serde")]
    pub shutdown_grace: Duration,
    /// Where the registry is.
    pub registry: RegistryLink,
    /// What the process reports of itself.
    pub telemetry: Telemetry,
}

/// Where the registry is, and how to be let in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryLink {
    /// Base URL.
    pub url: String,
    /// Bearer token for registering.
    pub token: Option<Secret>,
    /// A file that holds the token.
    pub token_file: Option<PathBuf>,
}

/// What the process reports of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// An env-filter: `info`, or `hubspoke_gateway=debug,warn`.
    pub log: String,
    /// Where traces, metrics and logs go by OTLP (http/protobuf): `http://collector:4318`. Unset: nowhere. The
    /// standard variables, `OTEL_EXPORTER_OTLP_ENDPOINT` and the others, take precedence.
    pub otlp_endpoint: Option<String>,
    /// The share of heartbeats, pushes and renewals that are traced, from 0 to 1.
    pub heartbeat_traces: f64,
}

impl Common {
    /// The defaults of a kind of process.
    pub fn of(process: &Process) -> Result<Self, std::net::AddrParseError> {
        Ok(Self {
            name: process.name.to_owned(),
            listen: process.listen.parse()?,
            advertise: None,
            control_listen: process.control_listen.map(str::parse).transpose()?,
            shutdown_grace: Duration::from_secs(10),
            registry: RegistryLink {
                url: "http://127.0.0.1:20000".to_owned(),
                token: None,
                token_file: None,
            },
            telemetry: Telemetry { log: "info".to_owned(), otlp_endpoint: None, heartbeat_traces: 0.01 },
        })
    }

    fn check(&self) -> Result<(), (String, String)> {
        let at = |key: &str, why: &dyn fmt::Display| (key.to_owned(), why.to_string());
        check_name(&self.name).map_err(|error| at("name", &error))?;
        if RESERVED_NAMES.contains(&self.name.as_str()) {
            return Err(at(
                "name",
                &format_args!(
                    "{:?} is where every service answers the platform; it can't have routes there",
                    self.name
                ),
            ));
        }
        if let Some(addr) = &self.advertise {
            check_addr(addr).map_err(|error| at("advertise", &error))?;
        }
        if !is_registry_url(&self.registry.url) {
            return Err(at(
                "registry.url",
                &format_args!("{:?} is no URL: http://host:port", self.registry.url),
            ));
        }
        if self.registry.token.is_some() && self.registry.token_file.is_some() {
            return Err(at("registry.token_file", &"registry.token is set too; keep one of them"));
        }
        if !(0.0..=1.0).contains(&self.telemetry.heartbeat_traces) {
            return Err(at("telemetry.heartbeat_traces", &"must be from 0 to 1"));
        }
        let filter = EnvFilter::builder().parse(&self.telemetry.log);
        filter.map(drop).map_err(|error| at("telemetry.log", &error))
    }
}

impl RegistryLink {
    /// The token, from the key or the file, without surrounding white space.
    ///
    /// # Errors
    /// Where the file can't be read or is empty.
    pub fn read_token(&self) -> Result<Option<Secret>, ConfigError> {
        let Some(file) = &self.token_file else { return Ok(self.token.clone()) };
        let wrong = |why: String| ConfigError::new(format!("registry.token_file {}: {why}", file.display()));
        let token = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        match token.trim() {
            "" => Err(wrong("the file is empty".to_owned())),
            token => Ok(Some(Secret(token.to_owned()))),
        }
    }
}

/// A text that is never shown: not in `Debug`, not in `--check-config`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A secret of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: for a header, or a comparison.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        ser.serialize_str("[redacted]")
    }
}

/// For `deserialize_with` on a list of strings: `["a", "b"]`, or text with commas (`a, b`), which is how people
/// write lists in variables.
///
/// # Errors
/// Where the value is neither.
pub fn list<'de, D: Deserializer<'de>>(de: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a list of strings, or text with commas")]
    enum ListOrText {
        List(Vec<String>),
        Text(String),
    }
    Ok(match ListOrText::deserialize(de)? {
        ListOrText::List(list) => list,
        ListOrText::Text(text) => {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        }
    })
}

#[cfg(test)]
mod tests;
