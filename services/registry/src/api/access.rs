//! Who may register what. Pure but for the token bucket's own state, whose clock is a parameter.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use hubspoke_chassis::config::Secret;
use hubspoke_protocol::ServiceInfo;
use ipnet::IpNet;
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use crate::config::Limits;

/// Longest `Id`, in bytes: it travels in headers, which is also why it is visible ASCII.
const MAX_ID: usize = 256;
/// Most entries of `Meta`: each costs far more memory than a byte of its text.
const MAX_META: usize = 64;

/// Why a call is refused before the catalogue sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("this needs the registry's token: Authorization: Bearer TOKEN")]
    Token,
    #[error("a web page of another site may not change the catalogue")]
    OtherSite,
    #[error("{0} is in none of the networks that may register (registry.allow_addrs)")]
    Address(String),
    #[error("{0} is a name; where registry.allow_addrs is set, only addresses of digits may register")]
    NotAnAddress(String),
    #[error("RequiredServices: {count} names are more than {most}")]
    TooManyRequired { count: usize, most: usize },
    #[error("Meta: {bytes} bytes are more than {most}")]
    MetaTooLong { bytes: u64, most: u64 },
    #[error("Meta: {0} entries are more than {MAX_META}")]
    MetaTooMany(usize),
    #[error("Id: {0} bytes are more than {MAX_ID}")]
    IdTooLong(usize),
    #[error("Id: must be of visible ASCII characters")]
    Id,
    #[error("PushKey: must be of characters that fit into a header, at most 256 of them")]
    PushKey,
    #[error("too many registrations just now; try again")]
    TooFast,
}

/// The rules of access.
#[derive(Debug)]
pub(crate) struct Access {
    token: Option<Secret>,
    networks: Vec<IpNet>,
    limits: Limits,
    bucket: Mutex<Bucket>,
}

impl Access {
    pub(crate) fn new(token: Option<Secret>, networks: Vec<IpNet>, limits: Limits) -> Self {
        let bucket = Mutex::new(Bucket::new(limits.registrations_per_second, Instant::now()));
        Self { token, networks, limits, bucket }
    }

    /// Whether a caller with this `Authorization` may change the catalogue.
    pub(crate) fn check_token(&self, authorization: Option<&[u8]>) -> Result<(), Denied> {
        let Some(token) = &self.token else { return Ok(()) };
        let shown = authorization.and_then(bearer).ok_or(Denied::Token)?;
        // Not telling by the time it takes how much of it was right.
        let right: bool = shown.ct_eq(token.expose().as_bytes()).into();
        if right { Ok(()) } else { Err(Denied::Token) }
    }

    /// Whether an instance may register. Names and addresses are valid.
    pub(crate) fn check_info(&self, info: &ServiceInfo) -> Result<(), Denied> {
        self.check_addr(&info.addr)?;
        self.check_addr(info.control_addr())?;
        let (count, most) = (info.required_services.len(), self.limits.required);
        if count > most {
            return Err(Denied::TooManyRequired { count, most });
        }
        if info.meta.len() > MAX_META {
            return Err(Denied::MetaTooMany(info.meta.len()));
        }
        let bytes = info.meta.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        let most = self.limits.meta.as_u64();
        if bytes > most {
            return Err(Denied::MetaTooLong { bytes, most });
        }
        if let Some(id) = info.id.as_ref().filter(|id| id.len() > MAX_ID) {
            return Err(Denied::IdTooLong(id.len()));
        }
        if !info.id().bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Denied::Id);
        }
        let fits = |key: &String| key.len() <= 256 && key.bytes().all(|b| b.is_ascii_graphic());
        if info.push_key.as_ref().is_some_and(|key| !fits(key)) {
            return Err(Denied::PushKey);
        }
        Ok(())
    }

    /// Whether one more registration may change the catalogue now.
    pub(crate) fn check_rate(&self) -> Result<(), Denied> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        if bucket.take(Instant::now()) { Ok(()) } else { Err(Denied::TooFast) }
    }

    /// A name may mean anything when it is looked up later, so a list of networks lets no names in.
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

/// Whether the caller is anything but a web page of another site: a browser would send such a page's `POST` without
/// asking, from inside the operator's network. Browsers say where a request comes from; members have no reason to.
pub(crate) fn check_site(headers: &HeaderMap) -> Result<(), Denied> {
    let of = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let elsewhere = match (of("sec-fetch-site"), of("origin")) {
        (Some(site), _) => site == b"cross-site" || site == b"same-site",
        // Older browsers, and pages that are not served by HTTPS or from this machine.
        (None, Some(origin)) => {
            let host = origin.windows(3).position(|part| part == b"://").map(|at| &origin[at + 3..]);
            host.is_none() || host != of("host")
        }
        (None, None) => false,
    };
    if elsewhere { Err(Denied::OtherSite) } else { Ok(()) }
}

fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Lets through so many per second, and as many at once.
#[derive(Debug)]
struct Bucket {
    per_second: u32,
    left: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, left: f64::from(per_second), at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let most = f64::from(self.per_second);
        let gone = now.saturating_duration_since(self.at).min(Duration::from_secs(1));
        self.left = (self.left + gone.as_secs_f64() * most).min(most);
        self.at = now;
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(token: Option<&str>, networks: &[&str]) -> Access {
        let networks = networks.iter().map(|net| net.parse().unwrap()).collect();
        Access::new(token.map(Secret::new), networks, Limits::default())
    }

    #[test]
    fn only_the_right_token_opens() {
        let closed = access(Some("hush"), &[]);
        for wrong in
            [None, Some("Bearer hus"), Some("Bearer hushh"), Some("hush"), Some("Basic hush"), Some("")]
        {
            assert_eq!(closed.check_token(wrong.map(str::as_bytes)), Err(Denied::Token), "{wrong:?}");
        }
        assert_eq!(closed.check_token(Some(b"Bearer hush")), Ok(()));
        assert_eq!(closed.check_token(Some(b"bearer hush")), Ok(()));
        assert_eq!(access(None, &[]).check_token(None), Ok(()));
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let headers = |pairs: &[(&'static str, &str)]| -> HeaderMap {
            let pair = |(name, value): &(&'static str, &str)| {
                (axum::http::HeaderName::from_static(name), value.parse().unwrap())
            };
            pairs.iter().map(pair).collect()
        };
        let host = ("host", "127.0.0.1:20000");
        for ours in [
            &[host][..],
            &[host, ("origin", "http://127.0.0.1:20000")],
            &[host, ("sec-fetch-site", "same-origin"), ("origin", "https://behind.a.proxy")],
            &[host, ("sec-fetch-site", "none")],
        ] {
            assert_eq!(check_site(&headers(ours)), Ok(()), "{ours:?}");
        }
        for other in [
            &[host, ("origin", "http://evil.example")][..],
            &[host, ("origin", "http://127.0.0.1:20001")],
            &[host, ("origin", "null")],
            &[host, ("sec-fetch-site", "cross-site")],
            &[host, ("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:20001")],
        ] {
            assert_eq!(check_site(&headers(other)), Err(Denied::OtherSite), "{other:?}");
        }
    }

    #[test]
    fn only_allowed_networks_register() {
        let some = access(None, &["10.0.0.0/8", "fd00::/8"]);
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
        assert_eq!(access(None, &[]).check_info(&info("localhost:80", None)), Ok(()));
    }

    #[test]
    fn meta_is_limited_in_bytes_and_entries() {
        let with = |entries: usize, value: &str| {
            let meta = (0..entries).map(|i| (format!("k{i}"), value.to_owned())).collect();
            access(None, &[]).check_info(&ServiceInfo { meta, ..ServiceInfo::new("a", "h:1") })
        };
        assert_eq!(with(MAX_META, ""), Ok(()));
        assert_eq!(with(MAX_META + 1, ""), Err(Denied::MetaTooMany(MAX_META + 1)));
        assert!(matches!(with(1, &"x".repeat(4096)), Err(Denied::MetaTooLong { .. })));
    }

    #[test]
    fn an_id_is_visible_ascii() {
        let open = access(None, &[]);
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
    fn a_bucket_lets_so_many_through_and_fills_again() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, start);
        assert_eq!((0..20).filter(|_| bucket.take(start)).count(), 10);
        let later = start + Duration::from_millis(500);
        assert_eq!((0..20).filter(|_| bucket.take(later)).count(), 5);
        let much_later = start + Duration::from_secs(3600);
        assert_eq!((0..20).filter(|_| bucket.take(much_later)).count(), 10);
        assert!(Bucket::new(0, start).take(start));
    }
}
