//! What a valid name and address look like. Pure.

use super::{EVERY_SERVICE, ServiceInfo};

/// Longest service name, in bytes: a DNS label (RFC 1035), so that every name can be a host name too.
const MAX_NAME: usize = 63;
/// Longest host, in bytes (RFC 1035).
const MAX_HOST: usize = 253;

/// First path segments that each member serves to the registry and to operators. A service of such a name could have no
/// routes of its own, and nobody reaches these through a gateway.
pub const RESERVED_NAMES: [&str; 6] = ["services", "heart-beat", "directory", "livez", "readyz", "metrics"];

/// A service name that no service can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no service name: 1 to 63 of a-z, 0-9 and -, not starting or ending with -")]
pub struct InvalidName(String);

/// An address that nothing can listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address: host:port, with a port from 1 to 65535")]
pub struct InvalidAddr(String);

/// What is wrong with a [`ServiceInfo`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInfo {
    /// `Name`
    #[error("Name: {0}")]
    Name(InvalidName),
    /// `Addr`
    #[error("Addr: {0}")]
    Addr(InvalidAddr),
    /// `ControlAddr`
    #[error("ControlAddr: {0}")]
    ControlAddr(InvalidAddr),
    /// One of `RequiredServices`
    #[error("RequiredServices: {0}")]
    Required(InvalidName),
}

/// Checks a service name: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.
///
/// # Errors
/// [`InvalidName`] with the name, cut to a length that a log line can bear.
pub fn check_name(name: &str) -> Result<(), InvalidName> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let bytes = name.as_bytes();
    let edges_ok = !bytes.starts_with(b"-") && !bytes.ends_with(b"-");
    if !bytes.is_empty() && bytes.len() <= MAX_NAME && edges_ok && bytes.iter().all(|&b| inner(b)) {
        Ok(())
    } else {
        Err(InvalidName(shortened(name)))
    }
}

/// Checks an address: `host:port`, the host a name, an IPv4 address or an IPv6 address in brackets.
///
/// # Errors
/// [`InvalidAddr`] with the address, cut to a length that a log line can bear.
pub fn check_addr(addr: &str) -> Result<(), InvalidAddr> {
    let valid = addr.rsplit_once(':').is_some_and(|(host, port)| {
        let port_ok = !port.is_empty()
            && port.bytes().all(|b| b.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port != 0);
        port_ok && host_ok(host)
    });
    if valid { Ok(()) } else { Err(InvalidAddr(shortened(addr))) }
}

fn host_ok(host: &str) -> bool {
    if let Some(v6) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return v6.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let byte_ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !host.is_empty() && host.len() <= MAX_HOST && host.bytes().all(byte_ok)
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

impl ServiceInfo {
    /// Checks names and addresses.
    ///
    /// # Errors
    /// [`InvalidInfo`] for the first field that is wrong.
    pub fn check(&self) -> Result<(), InvalidInfo> {
        check_name(&self.name).map_err(InvalidInfo::Name)?;
        check_addr(&self.addr).map_err(InvalidInfo::Addr)?;
        if let Some(addr) = &self.control_addr {
            check_addr(addr).map_err(InvalidInfo::ControlAddr)?;
        }
        for name in self.required_services.iter().filter(|name| *name != EVERY_SERVICE) {
            check_name(name).map_err(InvalidInfo::Required)?;
        }
        Ok(())
    }
}
