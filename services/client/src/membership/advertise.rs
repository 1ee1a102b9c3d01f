//! The addresses that a member registers.
//!
//! A member that listens on a wildcard address looks up its own address before each registration: a container that is
//! disconnected from its network and connected again may have another one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hubspoke_protocol::{InvalidInfo, ServiceInfo, check_addr};
use tokio::net::{UdpSocket, lookup_host};

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
    Local(u16),
}

impl Advertise {
    /// The addresses in `info`.
    pub fn fixed(info: &ServiceInfo) -> Self {
        Self { addr: Reach::At(info.addr.clone()), control_addr: info.control_addr.clone().map(Reach::At) }
    }

    /// Checks `info` as it would be registered.
    pub(super) fn check(&self, info: &ServiceInfo) -> Result<(), InvalidInfo> {
        let (addr, control_addr) = self.on(Ipv4Addr::LOCALHOST.into());
        check_addr(&addr).map_err(InvalidInfo::Addr)?;
        ServiceInfo { addr, control_addr, ..info.clone() }.check()
    }

    /// The addresses to register now: for callers, and for the registry.
    pub(super) async fn resolve(&self, registry: &str) -> io::Result<(String, Option<String>)> {
        let is_local = |reach: &Reach| matches!(reach, Reach::Local(_));
        let local = if is_local(&self.addr) || self.control_addr.as_ref().is_some_and(is_local) {
            local_ip_towards(registry).await?
        } else {
            Ipv4Addr::UNSPECIFIED.into() // unused
        };
        Ok(self.on(local))
    }

    fn on(&self, local: IpAddr) -> (String, Option<String>) {
        (self.addr.on(local), self.control_addr.as_ref().map(|reach| reach.on(local)))
    }
}

impl Reach {
    fn on(&self, local: IpAddr) -> String {
        match self {
            Self::At(addr) => addr.clone(),
            Self::Local(port) => SocketAddr::new(local, *port).to_string(),
        }
    }
}

/// The local address that the route to the registry starts from. Connecting a datagram socket sends nothing.
async fn local_ip_towards(registry: &str) -> io::Result<IpAddr> {
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
