//! Which instances may register, and how fast. Who may do so is decided by `hubspoke_chassis::rights`.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use hubspoke_chassis::rate_limit::{RateLimit, RateState};
use hubspoke_protocol::{RESERVED_NAMES, ServiceInfo};
use ipnet::IpNet;
use parking_lot::Mutex;

use crate::config::Limits;

/// Longest `Id`, in bytes. It is sent in headers, so it is also limited to visible ASCII.
const MAX_ID: usize = 256;
/// Longest `PushKey`, in bytes.
const MAX_PUSH_KEY: usize = 256;
/// Most entries of `Meta`: an entry costs far more memory than its text.
const MAX_META: usize = 64;

/// Why a request is refused before it reaches the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("{0} is not in a network that may register (registry.allow_addrs)")]
    Address(String),
    #[error("{0} is not an IP address, and only IP addresses may register if registry.allow_addrs is set")]
    NotAnAddress(String),
    #[error(
        "ControlAddr: {control} is on another host than Addr, {addr}; only a member with an Id, which it sends as \
         Hub-Instance in its answers, may have that"
    )]
    ControlHost { control: String, addr: String },
    #[error("Name: {0:?} is the first part of a path that every member serves itself")]
    ReservedName(String),
    #[error("RequiredServices: {count} names, at most {max} are allowed")]
    TooManyRequired { count: usize, max: usize },
    #[error("Meta: {bytes} bytes, at most {max} are allowed")]
    MetaTooLong { bytes: u64, max: u64 },
    #[error("Meta: {0} entries, at most {MAX_META} are allowed")]
    MetaTooMany(usize),
    #[error("Id: {0} bytes, at most {MAX_ID} are allowed")]
    IdTooLong(usize),
    #[error("Id: must be visible ASCII characters")]
    Id,
    #[error("PushKey: must be visible ASCII characters, at most {MAX_PUSH_KEY}")]
    PushKey,
    #[error("too many registrations at the moment; retry")]
    TooFast,
}

/// The access rules.
#[derive(Debug)]
pub(crate) struct Access {
    networks: Vec<IpNet>,
    limits: Limits,
    registrations: Option<RateLimit>,
    rate: Mutex<RateState>,
}

impl Access {
    pub(crate) fn new(networks: Vec<IpNet>, limits: Limits) -> Self {
        let per_second = limits.registrations_per_second;
        let registrations = RateLimit::new(per_second, per_second);
        Self { networks, limits, registrations, rate: Mutex::default() }
    }

    /// Checks an instance against the rules for registration. Its names and addresses are valid.
    pub(crate) fn check_info(&self, info: &ServiceInfo) -> Result<(), Denied> {
        self.check_addr(&info.addr)?;
        self.check_addr(info.control_addr())?;
        if info.id.is_none() && info.controls_other_host() {
            let (control, addr) = (info.control_addr().to_owned(), info.addr.clone());
            return Err(Denied::ControlHost { control, addr });
        }
        if RESERVED_NAMES.contains(&info.name.as_str()) {
            return Err(Denied::ReservedName(info.name.clone()));
        }
        let (count, max) = (info.required_services.len(), self.limits.required);
        if count > max {
            return Err(Denied::TooManyRequired { count, max });
        }
        if info.meta.len() > MAX_META {
            return Err(Denied::MetaTooMany(info.meta.len()));
        }
        let bytes = info.meta.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        let max = self.limits.meta.as_u64();
        if bytes > max {
            return Err(Denied::MetaTooLong { bytes, max });
        }
        if let Some(id) = info.id.as_ref().filter(|id| id.len() > MAX_ID) {
            return Err(Denied::IdTooLong(id.len()));
        }
        if !is_visible_ascii(info.id()) {
            return Err(Denied::Id);
        }
        let is_valid = |key: &String| key.len() <= MAX_PUSH_KEY && is_visible_ascii(key);
        if info.push_key.as_ref().is_some_and(|key| !is_valid(key)) {
            return Err(Denied::PushKey);
        }
        Ok(())
    }

    /// Counts a registration that changes the catalogue against the rate limit.
    pub(crate) fn check_rate(&self, now: Instant) -> Result<(), Denied> {
        let Some(limit) = &self.registrations else { return Ok(()) };
        if limit.admit(&mut self.rate.lock(), now) { Ok(()) } else { Err(Denied::TooFast) }
    }

    /// A host name may resolve to anything later, so a list of networks admits none.
    fn check_addr(&self, addr: &str) -> Result<(), Denied> {
        if self.networks.is_empty() {
            return Ok(());
        }
        let ip = addr.parse::<SocketAddr>().map_err(|_| Denied::NotAnAddress(addr.to_owned()))?.ip();
        let ip = match ip {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
            IpAddr::V4(_) => ip,
        };
        let allowed = self.networks.iter().any(|network| network.contains(&ip));
        if allowed { Ok(()) } else { Err(Denied::Address(addr.to_owned())) }
    }
}

fn is_visible_ascii(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn access(networks: &[&str]) -> Access {
        let networks = networks.iter().map(|net| net.parse().unwrap()).collect();
        Access::new(networks, Limits::default())
    }

    #[test]
    fn only_addresses_in_allowed_networks_may_register() {
        let some = access(&["10.0.0.0/8", "fd00::/8"]);
        let info = |addr: &str, control: Option<&str>| ServiceInfo {
            control_addr: control.map(str::to_owned),
            ..ServiceInfo::new("a", addr)
        };
        assert_eq!(some.check_info(&info("10.1.2.3:80", None)), Ok(()));
        assert_eq!(some.check_info(&info("[fd00::1]:80", None)), Ok(()));
        assert_eq!(some.check_info(&info("[::ffff:10.1.2.3]:80", None)), Ok(()));
        assert!(matches!(some.check_info(&info("11.0.0.1:80", None)), Err(Denied::Address(_))));
        assert!(matches!(some.check_info(&info("[::ffff:11.0.0.1]:80", None)), Err(Denied::Address(_))));
        assert!(matches!(
            some.check_info(&info("10.0.0.1:80", Some("127.0.0.1:1"))),
            Err(Denied::Address(_))
        ));
        assert!(matches!(some.check_info(&info("localhost:80", None)), Err(Denied::NotAnAddress(_))));
        assert_eq!(access(&[]).check_info(&info("localhost:80", None)), Ok(()));
    }

    #[test]
    fn meta_is_limited_in_bytes_and_entries() {
        let with = |entries: usize, value: &str| {
            let meta = (0..entries).map(|i| (format!("k{i}"), value.to_owned())).collect();
            access(&[]).check_info(&ServiceInfo { meta, ..ServiceInfo::new("a", "h:1") })
        };
        assert_eq!(with(MAX_META, ""), Ok(()));
        assert_eq!(with(MAX_META + 1, ""), Err(Denied::MetaTooMany(MAX_META + 1)));
        assert!(matches!(with(1, &"x".repeat(4096)), Err(Denied::MetaTooLong { .. })));
    }

    #[test]
    fn an_id_must_be_visible_ascii() {
        let open = access(&[]);
        let info = |id: &str| ServiceInfo { id: Some(id.to_owned()), ..ServiceInfo::new("a", "10.0.0.1:80") };
        for id in ["log-1f2e3d4c5b6a7988", "10.0.0.1:80", "550e8400-e29b-41d4-a716-446655440000", "a/b~c%20"]
        {
            assert_eq!(open.check_info(&info(id)), Ok(()), "{id}");
        }
        for id in ["a b", "a\n", "\u{1b}[2J", "a\0", "schlüssel", "\u{202e}a"] {
            assert_eq!(open.check_info(&info(id)), Err(Denied::Id), "{id:?}");
        }
        assert_eq!(open.check_info(&info(&"x".repeat(MAX_ID + 1))), Err(Denied::IdTooLong(MAX_ID + 1)));
    }

    #[test]
    fn registrations_are_limited_to_a_burst_and_a_rate() {
        let limited = |registrations_per_second| {
            let limits = Limits { registrations_per_second, ..Limits::default() };
            Access::new(Vec::new(), limits)
        };
        let (access, start) = (limited(10), Instant::now());
        let admitted = |now| (0..20).filter(|_| access.check_rate(now).is_ok()).count();
        assert_eq!(admitted(start), 10);
        assert_eq!(admitted(start + Duration::from_millis(500)), 5);
        assert_eq!(admitted(start + Duration::from_secs(3600)), 10);
        assert!((0..100).all(|_| limited(0).check_rate(start).is_ok()));
    }
}
