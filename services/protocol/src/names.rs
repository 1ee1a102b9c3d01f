//! Which names and addresses are valid.

use std::fmt;
use std::net::Ipv6Addr;

/// Longest service name, in bytes: a DNS label (RFC 1035), so that every name can be a host name too.
const MAX_NAME: usize = 63;
/// Longest host, in bytes (RFC 1035).
const MAX_HOST: usize = 253;
/// Most characters of an invalid value that an error repeats.
const MAX_QUOTED: usize = 100;

/// In `RequiredServices`: every service, present and future. An extension, for gateways.
pub const EVERY_SERVICE: &str = "*";

/// First path segments that every member serves itself. A service with such a name could have no routes of its
/// own, and gateways do not forward requests for these paths.
pub const RESERVED_NAMES: [&str; 6] = ["services", "heart-beat", "directory", "livez", "readyz", "metrics"];

/// The text is not a valid service name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidName(String);

/// The text is not a valid address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidAddr(String);

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = "1 to 63 of a-z, 0-9 and -, not starting or ending with -";
        write!(f, "{:?} is not a valid service name: {rule}", self.0)
    }
}

impl fmt::Display for InvalidAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a valid address: host:port, with a port from 1 to 65535", self.0)
    }
}

impl std::error::Error for InvalidName {}
impl std::error::Error for InvalidAddr {}

/// Checks a service name: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.
///
/// # Errors
/// [`InvalidName`], which quotes at most 100 characters of the name.
///
/// ```
/// use hubspoke_protocol::check_name;
///
/// assert!(check_name("log-2").is_ok());
/// assert!(check_name("Log").is_err());
/// ```
pub fn check_name(name: &str) -> Result<(), InvalidName> {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let valid_ends = !name.starts_with('-') && !name.ends_with('-');
    if (1..=MAX_NAME).contains(&name.len()) && valid_ends && name.bytes().all(valid) {
        Ok(())
    } else {
        Err(InvalidName(quoted(name)))
    }
}

/// Checks an address: `host:port`, where the host is a name, an IPv4 address or an IPv6 address in brackets, and
/// the port is not 0.
///
/// # Errors
/// [`InvalidAddr`], which quotes at most 100 characters of the address.
///
/// ```
/// use hubspoke_protocol::check_addr;
///
/// assert!(check_addr("[::1]:20003").is_ok());
/// assert!(check_addr("localhost").is_err(), "no port");
/// ```
pub fn check_addr(addr: &str) -> Result<(), InvalidAddr> {
    let valid = addr.rsplit_once(':').is_some_and(|(host, port)| {
        let digits = port.bytes().all(|byte| byte.is_ascii_digit()); // `parse` accepts a sign too
        digits && port.parse::<u16>().is_ok_and(|port| port != 0) && is_host(host)
    });
    if valid { Ok(()) } else { Err(InvalidAddr(quoted(addr))) }
}

fn is_host(host: &str) -> bool {
    if let Some(v6) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return v6.parse::<Ipv6Addr>().is_ok();
    }
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=MAX_HOST).contains(&host.len()) && host.bytes().all(valid)
}

fn quoted(text: &str) -> String {
    text.chars().take(MAX_QUOTED).collect()
}
