//! Under which addresses a member registers. Where it listens on a wildcard, the address is found anew for each
//! registration: a container that is taken off its network and put back may have another one.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{UdpSocket, lookup_host};

use super::NewMemberError;
use crate::protocol::{InvalidInfo, ServiceInfo, check_addr};

/// Where others reach a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advertise {
    /// At fixed addresses.
    Fixed {
        /// `host:port` for callers.
        addr: String,
        /// `host:port` for the registry, where it is another.
        control_addr: Option<String>,
    },
    /// At the local address of a socket connected towards the registry.
    Local {
        /// The port for callers.
        port: u16,
        /// The port for the registry, where it is another.
        control_port: Option<u16>,
    },
}

impl Advertise {
    /// Checks `info` as it would be registered.
    pub(super) fn check(&self, info: &ServiceInfo) -> Result<(), NewMemberError> {
        let (addr, control_addr) = match self {
            Self::Fixed { addr, control_addr } => (addr.clone(), control_addr.clone()),
            Self::Local { port, .. } => (SocketAddr::from((Ipv4Addr::LOCALHOST, *port)).to_string(), None),
        };
        check_addr(&addr).map_err(InvalidInfo::Addr)?;
        ServiceInfo { addr, control_addr, ..info.clone() }.check()?;
        Ok(())
    }

    /// The addresses to register now.
    pub(super) async fn resolve(&self, registry: &str) -> io::Result<(String, Option<String>)> {
        match self {
            Self::Fixed { addr, control_addr } => Ok((addr.clone(), control_addr.clone())),
            Self::Local { port, control_port } => {
                let ip = local_ip_towards(registry).await?;
                let on = |port| SocketAddr::from((ip, port)).to_string();
                Ok((on(*port), control_port.map(on)))
            }
        }
    }
}

/// The local address that the route to the registry starts from. Connecting a datagram socket sends nothing.
async fn local_ip_towards(registry: &str) -> io::Result<std::net::IpAddr> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let url = registry.parse::<reqwest::Url>().map_err(invalid)?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or(80);
    let target = lookup_host((host, port)).await?.next();
    let target = target.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
    let from: SocketAddr =
        if target.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(from).await?;
    socket.connect(target).await?;
    Ok(socket.local_addr()?.ip())
}
