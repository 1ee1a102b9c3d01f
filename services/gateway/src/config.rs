//! The `[gateway]` table: every key with its default. `[gateway.services.NAME]` overrides limits and timeouts for one
//! service.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use hubspoke_http1::{HeadLimits, MAX_FIELDS};
use hubspoke_protocol::{EVERY_SERVICE, GatewayHosts, check_name, is_host_name};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::balance::Balance;
use crate::extras::{AuthPolicy, CorsPolicy};

pub(crate) use self::extras::InvalidExtra;
pub use self::extras::{AuthConfig, CorsConfig};
pub use self::service::{EncodedSlash, ServiceConfig, Sticky};
pub use self::tls::{ClientAuth, TlsConfig};
pub use crate::eject::EjectConfig;
pub use crate::retry::RetryConfig;
pub use hubspoke_acme::{AcmeChallenge, AcmeConfig};

mod extras;
mod lists;
mod service;
mod tls;

/// Every service has a host below it, which browsers and curl resolve to this machine (RFC 6761, 6.3).
const LOCALHOST: &str = "localhost";

/// The `[gateway]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct GatewayConfig {
    /// Names of the public services; `"*"` is every service, including those that register later.
    pub expose: Vec<String>,
    /// The domain below which each service has a host of its own: `NAME.example.com`. `NAME.localhost` is always one.
    pub domain: Option<String>,
    /// Hosts of the gateway itself, which the members of a service can't ask for.
    pub hosts: Vec<String>,
    /// Whether `/` is a page that lists the public services.
    pub index: bool,
    /// Threads that serve requests; 0 is one per core.
    pub workers: usize,
    /// How an instance is picked among those that pass their health checks.
    pub balance: Balance,
    /// Addresses and networks of proxies in front whose `X-Forwarded-*` fields are trusted.
    #[serde(deserialize_with = "hubspoke_chassis::config::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Share of requests in the access log, from 0 to 1.
    pub access_log: f64,
    /// How long new connections are still accepted after the gateway has deregistered, so that a load balancer in front
    /// notices.
    #[serde(with = "humantime_serde")]
    pub drain_delay: Duration,
    /// Folder of what the gateway keeps: its account at an ACME server, and the certificates from there.
    pub data_dir: Option<PathBuf>,
    /// TLS towards clients.
    pub tls: TlsConfig,
    /// Timeouts.
    pub timeouts: TimeoutsConfig,
    /// Limits on sizes and numbers.
    pub limits: LimitsConfig,
    /// When a request is retried on another instance.
    pub retry: RetryConfig,
    /// When an instance is ejected.
    pub eject: EjectConfig,
    /// Overrides by service.
    pub services: BTreeMap<String, ServiceConfig>,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            expose: vec!["log".to_owned(), "visit".to_owned()],
            domain: None,
            hosts: Vec::new(),
            index: false,
            workers: 0,
            balance: Balance::Random,
            trusted_proxies: Vec::new(),
            access_log: 0.0,
            drain_delay: Duration::ZERO,
            data_dir: None,
            tls: TlsConfig::default(),
            timeouts: TimeoutsConfig::default(),
            limits: LimitsConfig::default(),
            retry: RetryConfig::default(),
            eject: EjectConfig::default(),
            services: BTreeMap::new(),
        }
    }
}

/// Timeouts. All of them are finite; `idle` does not apply to event streams, gRPC streams and upgraded
/// connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TimeoutsConfig {
    /// Time to connect to an instance.
    #[serde(with = "humantime_serde")]
    pub connect: Duration,
    /// Time from the first byte of a request's head to its last.
    #[serde(with = "humantime_serde")]
    pub request_header: Duration,
    /// Time from the end of the request to the beginning of the response; at most `total`.
    #[serde(with = "humantime_serde")]
    pub first_byte: Duration,
    /// Time for all attempts until a response begins, without the time that the client takes to send.
    #[serde(with = "humantime_serde")]
    pub total: Duration,
    /// How long a request waits, from its beginning on, if no instance of its service is there: the only one is being
    /// replaced, or refuses connections. A service that has had none for a minute is not waited for. 0 switches it off.
    #[serde(with = "humantime_serde")]
    pub wait: Duration,
    /// Longest silence within a body, in either direction.
    #[serde(with = "humantime_serde")]
    pub idle: Duration,
    /// How long responses and upgraded connections of an instance that is no longer registered may go on.
    #[serde(with = "humantime_serde")]
    pub removed: Duration,
    /// How long a client's idle connection is kept.
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    /// How long an idle connection to an instance is kept; shorter than instances keep theirs.
    #[serde(with = "humantime_serde")]
    pub pool_idle: Duration,
}

impl Default for TimeoutsConfig {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            request_header: Duration::from_secs(10),
            first_byte: Duration::from_secs(60), // nginx's proxy_read_timeout
            total: Duration::from_secs(90),
            wait: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            removed: Duration::from_secs(600),
            keep_alive: Duration::from_secs(75),
            pool_idle: Duration::from_secs(3),
        }
    }
}

/// Limits on sizes and numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LimitsConfig {
    /// Size of a request's head.
    pub header_size: ByteSize,
    /// Header fields of a request; 256 at most.
    pub header_count: usize,
    /// Length of a request's target.
    pub target_size: ByteSize,
    /// Size of a request's body; 0 is no limit.
    pub body_size: ByteSize,
    /// Minimum bytes per second of a request's body, once the gateway has waited for the client for ten seconds in all
    /// (or for `idle`, if that is shorter); 0 is no limit. Does not apply to gRPC, nor does `idle`.
    pub body_rate: ByteSize,
    /// Open client connections.
    pub connections: usize,
    /// Open connections per client address (for IPv6, per /64 network) that is not one of
    /// [`GatewayConfig::trusted_proxies`]; 0 is no limit.
    pub client_connections: usize,
    /// Requests in flight per service.
    pub in_flight: usize,
    /// Requests in flight per service that wait for an instance; see [`TimeoutsConfig::wait`].
    pub waiting: usize,
    /// Requests in flight per client address (for IPv6, per /64 network), streams and upgraded connections included; 0
    /// is no limit. Behind one of [`GatewayConfig::trusted_proxies`], the address that it reports counts.
    pub client_in_flight: usize,
    /// Percentage of a service's `in_flight` that one client address may use up; 100 is no limit.
    pub client_in_flight_percent: usize,
    /// Requests per second per client address; 0 is no limit.
    pub client_rate: u32,
    /// Requests that a client may send at once before the rate applies.
    pub client_burst: u32,
    /// Memory for request heads: those that have begun to arrive, and large ones of requests in flight. Once it is used
    /// up, a head of more than 4 KiB waits or is refused with 503.
    pub head_memory: ByteSize,
    /// Memory for request bodies that are kept for a retry. Once it is used up, further ones are not kept.
    pub replay_memory: ByteSize,
    /// Memory for bytes that wait for clients or instances to read them. The more of it is used, the less is read ahead
    /// for each of them.
    pub buffer_memory: ByteSize,
    /// Open HTTP/2 connections of clients, each of which takes up far more memory than one over HTTP/1. One client
    /// address gets half of them, unless it is one of [`GatewayConfig::trusted_proxies`].
    pub h2_connections: usize,
    /// Concurrent streams per HTTP/2 connection.
    pub streams: u32,
    /// Idle connections that are kept per instance and worker.
    pub pool_size: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            header_size: ByteSize::kib(32),
            header_count: 100,
            target_size: ByteSize::kib(8),
            body_size: ByteSize::b(0),
            body_rate: ByteSize::b(240), // Kestrel's default
            connections: 10_000,
            client_connections: 5_000, // half of all, so that one address can't lock everybody out
            in_flight: 5_000,
            waiting: 2_500,
            client_in_flight: 2_500, // half of one service's
            client_in_flight_percent: 50,
            client_rate: 0,
            client_burst: 100,
            head_memory: ByteSize::mib(12),
            replay_memory: ByteSize::mib(16),
            buffer_memory: ByteSize::mib(24),
            h2_connections: 500,
            streams: 128,
            pool_size: 1024,
        }
    }
}

impl LimitsConfig {
    /// The limits of a request's head.
    pub(crate) fn head(&self) -> HeadLimits {
        let bytes = |size: ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        HeadLimits {
            size: bytes(self.header_size),
            fields: self.header_count,
            target: bytes(self.target_size),
        }
    }
}

impl GatewayConfig {
    /// The defaults, but with every service public.
    pub fn exposing_all() -> Self {
        Self { expose: vec![EVERY_SERVICE.to_owned()], ..Self::default() }
    }

    /// A host can be given to one service only.
    fn check_service_hosts(&self) -> Result<(), (String, String)> {
        let mut taken = BTreeMap::from([("localhost".to_owned(), "the gateway")]);
        let own = self.hosts.iter().chain(&self.domain);
        taken.extend(own.map(|host| (host.to_ascii_lowercase(), "the gateway")));
        for (name, service) in &self.services {
            let key = format!("services.{name}.hosts");
            for host in service.hosts.iter().flatten() {
                if !is_host_name(host) {
                    return Err((key, format!("{host:?} is not a valid host name")));
                }
                if let Some(holder) = taken.insert(host.to_ascii_lowercase(), name) {
                    return Err((key, format!("{host} is a host of {holder} already")));
                }
            }
        }
        Ok(())
    }

    /// The hosts that the gateway, registered as `own`, keeps or gives away.
    pub(crate) fn gateway_hosts(&self, own: &str) -> GatewayHosts {
        let lower = |host: &String| host.to_ascii_lowercase();
        let mut hosts = GatewayHosts {
            own: self.hosts.iter().map(lower).chain([own.to_owned()]).collect(),
            domains: self.domain.iter().map(lower).chain([LOCALHOST.to_owned()]).collect(),
            ..GatewayHosts::default()
        };
        for (name, service) in &self.services {
            if let Some(given) = &service.hosts {
                hosts.given.extend(given.iter().map(|host| (lower(host), name.clone())));
                hosts.decided.insert(name.clone());
            }
        }
        hosts
    }

    /// Services that are asked whether requests to others may pass.
    pub(crate) fn asked_services(&self) -> impl Iterator<Item = &str> {
        self.services.values().filter_map(|own| own.auth.as_ref()).map(|auth| &*auth.service)
    }

    /// Whether every service is public.
    pub fn exposes_all(&self) -> bool {
        self.expose.iter().any(|name| name == EVERY_SERVICE)
    }
}

const HEADER_SIZE: &str = "must be from 256 B to 1 MiB";
const TIMEOUT: &str = "a timeout must be longer than 0";
const FIRST_BYTE: &str = "first_byte must not be longer than total";

impl hubspoke_chassis::Table for GatewayConfig {
    fn check(&self) -> Result<(), (String, String)> {
        let invalid = |key: &str, why: &dyn std::fmt::Display| Err((key.to_owned(), why.to_string()));
        for name in self.expose.iter().filter(|name| *name != EVERY_SERVICE) {
            if let Err(error) = check_name(name) {
                return invalid("expose", &error);
            }
        }
        for name in self.services.keys() {
            if let Err(error) = check_name(name) {
                return invalid("services", &error);
            }
        }
        if let Some(host) = self.domain.iter().chain(&self.hosts).find(|host| !is_host_name(host)) {
            let key = if self.domain.as_ref() == Some(host) { "domain" } else { "hosts" };
            return invalid(key, &format!("{host:?} is not a valid host name"));
        }
        self.check_service_hosts()?;
        if let Some((key, why)) = self.tls.check() {
            return invalid(&key, &why);
        }
        let (limits, timeouts) = (&self.limits, &self.timeouts);
        let header_count = format!("must be from 1 to {MAX_FIELDS}");
        for (key, valid, error) in [
            ("access_log", (0.0..=1.0).contains(&self.access_log), "must be from 0 to 1"),
            ("limits.header_count", (1..=MAX_FIELDS).contains(&limits.header_count), &header_count),
            ("limits.header_size", (256..=1 << 20).contains(&limits.header_size.as_u64()), HEADER_SIZE),
            ("limits.connections", limits.connections > 0, "must be at least 1"),
            (
                "limits.client_in_flight_percent",
                (1..=100).contains(&limits.client_in_flight_percent),
                "must be from 1 to 100",
            ),
            ("limits.h2_connections", limits.h2_connections > 0, "must be at least 1"),
            ("eject.max_percent", self.eject.max_percent <= 100, "must be from 0 to 100"),
            ("timeouts.connect", !timeouts.connect.is_zero(), TIMEOUT),
            ("timeouts.request_header", !timeouts.request_header.is_zero(), TIMEOUT),
            ("timeouts.first_byte", !timeouts.first_byte.is_zero(), TIMEOUT),
            ("timeouts.total", !timeouts.total.is_zero(), TIMEOUT),
            ("timeouts.idle", !timeouts.idle.is_zero(), TIMEOUT),
            ("timeouts.removed", !timeouts.removed.is_zero(), TIMEOUT),
            ("timeouts.keep_alive", !timeouts.keep_alive.is_zero(), TIMEOUT),
            ("timeouts.first_byte", timeouts.first_byte <= timeouts.total, FIRST_BYTE),
        ] {
            if !valid {
                return invalid(key, &error);
            }
        }
        for (name, own) in &self.services {
            let key = |key: &str| format!("services.{name}.{key}");
            let cors = own.cors.as_ref().map_or(Ok(()), |cors| CorsPolicy::new(cors).map(drop));
            let auth = own.auth.as_ref().map_or(Ok(()), |auth| AuthPolicy::new(auth, name).map(drop));
            if let Err((at, why)) = cors.and(auth) {
                return invalid(&key(at), &why);
            }
            for (timeout, value) in [
                ("connect", own.connect),
                ("first_byte", own.first_byte),
                ("total", own.total),
                ("idle", own.idle),
            ] {
                if value.is_some_and(|value| value.is_zero()) {
                    return invalid(&key(timeout), &TIMEOUT);
                }
            }
            if own.first_byte.unwrap_or(timeouts.first_byte) > own.total.unwrap_or(timeouts.total) {
                let set = if own.first_byte.is_some() { "first_byte" } else { "total" };
                return invalid(&key(set), &FIRST_BYTE);
            }
        }
        Ok(())
    }
}
