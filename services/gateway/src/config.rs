//! The `[gateway]` table: every key with its default. Limits and timeouts stand here for all services, and per
//! service below `[gateway.services.NAME]`, where an unset key means the general one.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use hubspoke_protocol::{EVERY_SERVICE, check_name};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::balance::Balance;
use crate::edge::framing::{HeadLimits, MAX_FIELDS};
pub use crate::eject::EjectConfig;
pub use crate::retry::RetryConfig;

/// The gateway's own table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Names of the public services; `"*"` is every service, those that register later too.
    #[serde(deserialize_with = "hubspoke_chassis::config::list")]
    pub expose: Vec<String>,
    /// Threads that serve requests; 0 is one per core.
    pub workers: usize,
    /// How an instance is picked among those that pass.
    pub balance: Balance,
    /// Addresses and networks of proxies in front, whose `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Share of requests in the access log, from 0 to 1.
    pub access_log: f64,
    /// How long new connections are still taken after the gateway has deregistered, so that a load balancer in
    /// front can notice.
    #[serde(with = "humantime_serde")]
    pub drain_delay: Duration,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How large and how many.
    pub limits: Limits,
    /// When a request is tried again on another instance.
    pub retry: RetryConfig,
    /// When an instance gets no requests for a while.
    pub eject: EjectConfig,
    /// What is different for one service.
    pub services: BTreeMap<String, ServiceConfig>,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            expose: vec!["log".to_owned(), "visit".to_owned()],
            workers: 0,
            balance: Balance::Random,
            trusted_proxies: Vec::new(),
            access_log: 0.0,
            drain_delay: Duration::ZERO,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            retry: RetryConfig::default(),
            eject: EjectConfig::default(),
            services: BTreeMap::new(),
        }
    }
}

/// How long things may take. None of them is ever infinite, but on a live stream and an upgraded connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// A connection to an instance must stand by then.
    #[serde(with = "humantime_serde")]
    pub connect: Duration,
    /// A request's head must be complete this long after it began.
    #[serde(with = "humantime_serde")]
    pub request_header: Duration,
    /// An instance must begin to reply this long after it has the whole request; no longer than `total`.
    #[serde(with = "humantime_serde")]
    pub first_byte: Duration,
    /// All attempts together must have led to a reply by then, but for the time that the client took to send.
    #[serde(with = "humantime_serde")]
    pub total: Duration,
    /// Silence within a body, in either direction.
    #[serde(with = "humantime_serde")]
    pub idle: Duration,
    /// A client's connection without a request is kept this long.
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    /// An instance's connection without a request is kept this long: less than instances keep theirs.
    #[serde(with = "humantime_serde")]
    pub pool_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            request_header: Duration::from_secs(10),
            first_byte: Duration::from_secs(15),
            total: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            keep_alive: Duration::from_secs(75),
            pool_idle: Duration::from_secs(3),
        }
    }
}

/// How large and how many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// A request's head.
    pub header_size: ByteSize,
    /// A request's header fields, 256 at most.
    pub header_count: usize,
    /// A request's target.
    pub target_size: ByteSize,
    /// A request's body; 0 is no limit.
    pub body_size: ByteSize,
    /// Bytes per second that a client must send of a body, once it has been waited for ten seconds (or `idle`, where
    /// that is shorter); 0 is no limit. There is none, and no limit to silence, where the request is a gRPC stream.
    pub body_rate: ByteSize,
    /// Clients' connections.
    pub connections: usize,
    /// Connections of one client address (of one /64 network, where it is IPv6), unless it is one of
    /// [`GatewayConfig::trusted_proxies`]; 0 is no limit.
    pub client_connections: usize,
    /// Requests in flight per service.
    pub in_flight: usize,
    /// Requests per second and client address; 0 is no limit.
    pub client_rate: u32,
    /// Requests that a client may make at once before the rate holds.
    pub client_burst: u32,
    /// Streams of one HTTP/2 connection.
    pub streams: u32,
    /// Idle connections kept per instance and worker.
    pub pool_size: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_size: ByteSize::kib(32),
            header_count: 100,
            target_size: ByteSize::kib(8),
            body_size: ByteSize::b(0),
            body_rate: ByteSize::b(240), // Kestrel's default
            connections: 10_000,
            client_connections: 5_000, // half of all: one address alone can't lock everybody out
            in_flight: 10_000,
            client_rate: 0,
            client_burst: 100,
            streams: 128,
            pool_size: 1024,
        }
    }
}

impl Limits {
    /// What holds for a request's head.
    pub(crate) fn head(&self) -> HeadLimits {
        let bytes = |size: ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        HeadLimits {
            size: bytes(self.header_size),
            fields: self.header_count,
            target: bytes(self.target_size),
        }
    }
}

/// What is different for one service; unset keys are as for all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceConfig {
    /// See [`GatewayConfig::balance`].
    pub balance: Option<Balance>,
    /// Sends requests with the same value of this to the same instance: `header:NAME` or `cookie:NAME`.
    pub sticky: Option<Sticky>,
    /// Whether an encoded slash in the path is refused, or passed on to a service that knows what it means.
    pub encoded_slash: EncodedSlash,
    /// See [`Timeouts::connect`].
    #[serde(with = "humantime_serde")]
    pub connect: Option<Duration>,
    /// See [`Timeouts::first_byte`].
    #[serde(with = "humantime_serde")]
    pub first_byte: Option<Duration>,
    /// See [`Timeouts::total`].
    #[serde(with = "humantime_serde")]
    pub total: Option<Duration>,
    /// See [`Timeouts::idle`].
    #[serde(with = "humantime_serde")]
    pub idle: Option<Duration>,
    /// See [`Limits::body_size`].
    pub body_size: Option<ByteSize>,
    /// See [`Limits::body_rate`].
    pub body_rate: Option<ByteSize>,
    /// See [`Limits::in_flight`].
    pub in_flight: Option<usize>,
    /// See [`RetryConfig::attempts`].
    pub attempts: Option<u32>,
}

/// What is done with `%2f` in a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EncodedSlash {
    /// 400: most services can't tell it from a slash.
    #[default]
    Refuse,
    /// It goes on as it came.
    Pass,
}

/// Where the key is that ties requests to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Sticky {
    /// A header field.
    Header(http::HeaderName),
    /// A cookie.
    Cookie(String),
}

impl TryFrom<String> for Sticky {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("header", name)) => {
                name.parse().map(Self::Header).map_err(|_| format!("{name:?} is no header name"))
            }
            Some(("cookie", name)) if !name.is_empty() => Ok(Self::Cookie(name.to_owned())),
            _ => Err(format!("{text:?} is neither header:NAME nor cookie:NAME")),
        }
    }
}

impl From<Sticky> for String {
    fn from(sticky: Sticky) -> Self {
        match sticky {
            Sticky::Header(name) => format!("header:{name}"),
            Sticky::Cookie(name) => format!("cookie:{name}"),
        }
    }
}

impl GatewayConfig {
    /// Whether every service is public.
    pub fn exposes_all(&self) -> bool {
        self.expose.iter().any(|name| name == EVERY_SERVICE)
    }
}

const TIMEOUT: &str = "a timeout must be longer than nothing";
const FIRST_BYTE: &str = "first_byte can't be longer than total, which ends all waiting for a reply";

impl hubspoke_chassis::Table for GatewayConfig {
    fn check(&self) -> Result<(), (String, String)> {
        let wrong = |key: &str, why: &dyn std::fmt::Display| Err((key.to_owned(), why.to_string()));
        for name in self.expose.iter().filter(|name| *name != EVERY_SERVICE) {
            if let Err(error) = check_name(name) {
                return wrong("expose", &error);
            }
        }
        for name in self.services.keys() {
            if let Err(error) = check_name(name) {
                return wrong("services", &error);
            }
        }
        if !(0.0..=1.0).contains(&self.access_log) {
            return wrong("access_log", &"a share is from 0 to 1");
        }
        if !(1..=MAX_FIELDS).contains(&self.limits.header_count) {
            return wrong("limits.header_count", &format_args!("from 1 to {MAX_FIELDS}"));
        }
        if !(256..=1 << 20).contains(&self.limits.header_size.as_u64()) {
            return wrong("limits.header_size", &"from 256 bytes to 1 MiB");
        }
        let timeouts = &self.timeouts;
        for (key, value) in [
            ("connect", timeouts.connect),
            ("request_header", timeouts.request_header),
            ("first_byte", timeouts.first_byte),
            ("total", timeouts.total),
            ("idle", timeouts.idle),
            ("keep_alive", timeouts.keep_alive),
        ] {
            if value.is_zero() {
                return wrong(&format!("timeouts.{key}"), &TIMEOUT);
            }
        }
        if timeouts.first_byte > timeouts.total {
            return wrong("timeouts.first_byte", &FIRST_BYTE);
        }
        for (name, own) in &self.services {
            let key = |key: &str| format!("services.{name}.{key}");
            for (what, value) in [
                ("connect", own.connect),
                ("first_byte", own.first_byte),
                ("total", own.total),
                ("idle", own.idle),
            ] {
                if value.is_some_and(|value| value.is_zero()) {
                    return wrong(&key(what), &TIMEOUT);
                }
            }
            if own.first_byte.unwrap_or(timeouts.first_byte) > own.total.unwrap_or(timeouts.total) {
                let set = if own.first_byte.is_some() { "first_byte" } else { "total" };
                return wrong(&key(set), &FIRST_BYTE);
            }
        }
        if self.limits.connections == 0 {
            return wrong("limits.connections", &"at least 1");
        }
        if self.eject.max_percent > 100 {
            return wrong("eject.max_percent", &"from 0 to 100");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
