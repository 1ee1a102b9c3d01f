//! Which addresses are valid: those that others can connect to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::names::quoted;

/// Longest host, in bytes (RFC 1035).
const MAX_HOST: usize = 253;
/// Longest part of a host name between two dots, in bytes (RFC 1035).
const MAX_LABEL: usize = 63;

const HOST_AND_PORT: &str = "host:port, with a port from 1 to 65535";
const BRACKETS: &str = "an IPv6 address before a port stands in brackets, as in [fd00::5]:20003";
const INVALID_HOST: &str = "a host is a name, an IPv4 address, or an IPv6 address in brackets";
const ODD_IPV4: &str = "an IPv4 address has four decimal numbers from 0 to 255, as in 10.0.0.7";
const UNSPECIFIED: &str = "it stands for every address of a machine; name one that others can connect to";
const MULTICAST: &str = "a multicast or broadcast address belongs to no single machine";
const LINK_LOCAL: &str =
    "a link-local IPv6 address is valid only with the zone of one machine; use another address";

/// The text is not a valid address, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidAddr {
    text: String,
    why: &'static str,
}

impl InvalidAddr {
    fn new(text: &str, why: &'static str) -> Self {
        Self { text: quoted(text), why }
    }
}

impl fmt::Display for InvalidAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a valid address: {}", self.text, self.why)
    }
}

impl std::error::Error for InvalidAddr {}

/// Checks an address: `host:port`, where the host is a name, an IPv4 address or an IPv6 address in brackets, and
/// the port is not 0.
///
/// A wildcard, a multicast, a broadcast and a link-local IPv6 address are refused: others can't connect there. So are
/// the short and octal forms of IPv4 (`127.1`, `2130706433`), which some resolvers take for an address and some for
/// a name.
///
/// # Errors
/// [`InvalidAddr`], which quotes at most 100 characters of the address.
///
/// ```
/// use hubspoke_protocol::check_addr;
///
/// assert!(check_addr("[::1]:20003").is_ok());
/// assert!(check_addr("localhost").is_err(), "no port");
/// assert!(check_addr("0.0.0.0:20003").is_err(), "every address of a machine");
/// ```
pub fn check_addr(addr: &str) -> Result<(), InvalidAddr> {
    let invalid = |why| InvalidAddr::new(addr, why);
    let (host, port) = addr.rsplit_once(':').ok_or_else(|| invalid(HOST_AND_PORT))?;
    // `parse` accepts a sign and leading zeros, and h:080 would be another instance than h:80.
    let digits = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
    if !digits || port.parse::<u16>().is_err() {
        return Err(invalid(HOST_AND_PORT));
    }
    if host.contains(':') && !host.starts_with('[') {
        return Err(invalid(BRACKETS));
    }
    check_host_part(host).map_err(invalid)
}

/// Checks a host without a port: as in [`check_addr`], and an IPv6 address may stand without brackets.
///
/// # Errors
/// [`InvalidAddr`], which quotes at most 100 characters of the host.
///
/// ```
/// use hubspoke_protocol::check_host;
///
/// assert!(check_host("fd00::5").is_ok() && check_host("[fd00::5]").is_ok());
/// assert!(check_host("::").is_err(), "every address of a machine");
/// ```
pub fn check_host(host: &str) -> Result<(), InvalidAddr> {
    let checked = match host.parse::<Ipv6Addr>() {
        Ok(v6) => check_ip(v6.into()),
        Err(_) => check_host_part(host),
    };
    checked.map_err(|why| InvalidAddr::new(host, why))
}

/// Checks that others can connect to an IP address.
///
/// # Errors
/// The reason why they can't.
pub fn check_ip(ip: IpAddr) -> Result<(), &'static str> {
    match ip.to_canonical() {
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Err(UNSPECIFIED),
        IpAddr::V6(v6) if v6.is_unspecified() => Err(UNSPECIFIED),
        IpAddr::V4(v4) if v4.is_multicast() || v4.is_broadcast() => Err(MULTICAST),
        IpAddr::V6(v6) if v6.is_multicast() => Err(MULTICAST),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(LINK_LOCAL),
        _ => Ok(()),
    }
}

fn check_host_part(host: &str) -> Result<(), &'static str> {
    if let Some(v6) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let zoned = v6.split_once('%').is_some_and(|(v6, _)| v6.parse::<Ipv6Addr>().is_ok());
        let v6 = v6.parse::<Ipv6Addr>().map_err(|_| if zoned { LINK_LOCAL } else { INVALID_HOST })?;
        return check_ip(v6.into());
    }
    let name = host.strip_suffix('.').unwrap_or(host); // a fully qualified name may end with a dot
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(valid);
    if host.len() > MAX_HOST || !name.split('.').all(is_label) {
        return Err(INVALID_HOST);
    }
    if ends_in_number(name) {
        return host.parse::<Ipv4Addr>().map_err(|_| ODD_IPV4).and_then(|v4| check_ip(v4.into()));
    }
    Ok(())
}

/// Whether resolvers may read a host as an IPv4 address: its last part is a decimal or hexadecimal number, as the URL
/// standard has it.
fn ends_in_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        || (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()))
}
