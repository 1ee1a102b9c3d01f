//! The addresses that a member registers.
//!
//! A member that listens on a wildcard address looks up its own address before each registration: a container that is
//! disconnected from its network and connected again may have another one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hubspoke_protocol::{InvalidInfo, ServiceInfo, check_ip};
use tokio::net::UdpSocket;

/// Where others reach a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertise {
    /// For callers.
    pub addr: Reach,
    /// For heartbeats and pushes of the registry, if it differs.
    pub control_addr: Option<Reach>,
}

/// One address of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// This `host:port`.
    At(String),
    /// This port of the local address that the route to the registry starts from.
    Local {
        /// The port.
        port: u16,
        /// The families of addresses that the socket listens on.
        families: Families,
    },
}

/// Families of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Both,
}

impl Families {
    fn have(self, ip: IpAddr) -> bool {
        match self {
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
            Self::Both => true,
        }
    }
}

impl Advertise {
    /// The addresses in `info`.
    pub fn fixed(info: &ServiceInfo) -> Self {
        Self { addr: Reach::At(info.addr.clone()), control_addr: info.control_addr.clone().map(Reach::At) }
    }

    /// Checks `info` as it would be registered.
    pub(super) fn check(&self, info: &ServiceInfo) -> Result<(), InvalidInfo> {
        let addr = |reach: &Reach| match reach {
            Reach::At(addr) => addr.clone(),
            Reach::Local { port, .. } => SocketAddr::from((Ipv4Addr::LOCALHOST, *port)).to_string(),
        };
        let (addr, control_addr) = (addr(&self.addr), self.control_addr.as_ref().map(addr));
        ServiceInfo { addr, control_addr, ..info.clone() }.check()
    }

    /// The addresses to register now: for callers, and for the registry, which has these addresses.
    pub(super) async fn resolve(&self, registry: &[SocketAddr]) -> io::Result<(String, Option<String>)> {
        let control_addr = match &self.control_addr {
            Some(reach) => Some(reach.resolve(registry).await?),
            None => None,
        };
        Ok((self.addr.resolve(registry).await?, control_addr))
    }
}

impl Reach {
    async fn resolve(&self, registry: &[SocketAddr]) -> io::Result<String> {
        match self {
            Self::At(addr) => Ok(addr.clone()),
            Self::Local { port, families } => {
                Ok(SocketAddr::new(local_ip_towards(registry, *families).await?, *port).to_string())
            }
        }
    }
}

/// The local address that the route to the registry starts from: of a family that is listened on, and one that others
/// can connect to. A name may have addresses of a family for which this machine has no route, or only a link-local
/// address.
async fn local_ip_towards(registry: &[SocketAddr], families: Families) -> io::Result<IpAddr> {
    let mut failed = None;
    for target in registry.iter().filter(|target| families.have(target.ip())) {
        match route_start(*target).await {
            Ok(ip) if check_ip(ip).is_ok() => return Ok(ip),
            Ok(_) => {}
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| {
        let why = match families {
            Families::V4 => "the registry has no IPv4 address, and this service listens only on IPv4",
            Families::V6 => "the registry has no IPv6 address, and this service listens only on IPv6",
            Families::Both => "the route to the registry starts from a link-local address",
        };
        io::Error::new(io::ErrorKind::AddrNotAvailable, format!("{why}; set advertise_host"))
    }))
}

/// The local address that the route to `target` starts from. Connecting a datagram socket sends nothing.
async fn route_start(target: SocketAddr) -> io::Result<IpAddr> {
    let from: SocketAddr =
        if target.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(from).await?;
    socket.connect(target).await?;
    Ok(socket.local_addr()?.ip())
}

/// The address from which this machine reaches others: that of its default route. `None` without one.
pub async fn default_route_ip() -> Option<IpAddr> {
    // Addresses for documentation (RFC 5737, RFC 3849), to which nothing is sent.
    let targets = [
        SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9)),
        SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9)),
    ];
    local_ip_towards(&targets, Families::Both).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|addr| addr.parse().unwrap()).collect()
    }

    /// `localhost` has `::1` first on many machines.
    #[tokio::test]
    async fn the_address_is_of_a_family_that_is_listened_on() {
        let both = addrs(&["[::1]:1", "127.0.0.1:1"]);
        let towards = async |families| local_ip_towards(&both, families).await.unwrap().to_string();
        assert_eq!(towards(Families::V4).await, "127.0.0.1");
        assert_eq!(towards(Families::V6).await, "::1");
        assert_eq!(towards(Families::Both).await, "::1");
        let only_v6 = local_ip_towards(&addrs(&["[::1]:1"]), Families::V4).await.unwrap_err().to_string();
        assert!(only_v6.contains("listens only on IPv4; set advertise_host"), "{only_v6}");
    }

    #[tokio::test]
    async fn an_address_without_a_route_is_passed_over() {
        // A link-local address without a zone can't be connected to.
        let registry = addrs(&["[fe80::1]:1", "127.0.0.1:1"]);
        assert_eq!(local_ip_towards(&registry, Families::Both).await.unwrap().to_string(), "127.0.0.1");
    }
}
