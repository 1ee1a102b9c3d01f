//! The addresses that a service binds and registers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hubspoke_client::membership::{Advertise, Families, Reach};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};

use super::error::BindError;
use crate::config::Common;

/// Connections that may wait to be accepted. If the queue is full, a connecting client loses a second to a retransmit,
/// so it is as long as Linux allows by default (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// A bound address.
pub(super) struct BoundAddr {
    pub(super) listener: TcpListener,
    pub(super) addr: SocketAddr,
    families: Families,
}

/// Binds `addr`, which the configuration key `key` sets. `[::]` takes IPv4 too, and is `0.0.0.0` on a machine without
/// IPv6, so that the same settings suit every network.
pub(super) fn listen(
    addr: SocketAddr,
    key: &'static str,
    program: &'static str,
) -> Result<BoundAddr, BindError> {
    let is_any_v6 = addr.is_ipv6() && addr.ip().is_unspecified();
    let bound = match bind(addr) {
        Err(error) if is_any_v6 && has_no_ipv6(&error) => {
            tracing::info!(%addr, "this machine has no IPv6; listening on IPv4 only");
            bind((Ipv4Addr::UNSPECIFIED, addr.port()).into())
        }
        bound => bound,
    };
    let failed = |error| BindError::Listen { addr, key, program, error };
    let listener = bound.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    let families = match addr.ip() {
        IpAddr::V4(_) => Families::V4,
        IpAddr::V6(_) if is_any_v6 => Families::Both,
        IpAddr::V6(_) => Families::V6,
    };
    Ok(BoundAddr { listener, addr, families })
}

fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        SockRef::from(&socket).set_only_v6(false)?; // the default may differ (net.ipv6.bindv6only)
    }
    socket.set_reuseaddr(true)?; // a restart need not wait for connections in TIME_WAIT
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Whether a wildcard could not be bound because the kernel has no IPv6, or has it disabled.
fn has_no_ipv6(error: &io::Error) -> bool {
    let no_family = error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    no_family || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// The addresses to register. `advertise` is registered as the address. A bound address is registered unchanged unless
/// it is a wildcard, which is replaced by `advertise_host` (or the host of `advertise`) or, without one, by the local
/// address from which the registry is reached.
pub(super) fn advertise(common: &Common, addr: &BoundAddr, control: Option<&BoundAddr>) -> Advertise {
    let of_advertise =
        common.advertise.as_deref().and_then(|addr| addr.rsplit_once(':')).map(|(host, _)| host);
    let host = common.advertise_host.as_deref().or(of_advertise);
    let at = |host: &str, port: u16| match host.parse::<Ipv6Addr>() {
        Ok(v6) => Reach::At(SocketAddr::from((v6, port)).to_string()),
        Err(_) => Reach::At(format!("{host}:{port}")),
    };
    let reach = |bound: &BoundAddr| match host {
        _ if !bound.addr.ip().is_unspecified() => Reach::At(bound.addr.to_string()),
        Some(host) => at(host, bound.addr.port()),
        None => Reach::Local { port: bound.addr.port(), families: bound.families },
    };
    let public = match (&common.advertise, &common.advertise_host) {
        (Some(addr), _) => Reach::At(addr.clone()),
        (None, Some(host)) => at(host, addr.addr.port()),
        (None, None) => reach(addr),
    };
    Advertise { addr: public, control_addr: control.map(reach) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Process;

    fn at(addr: &str) -> Reach {
        Reach::At(addr.to_owned())
    }

    fn local(port: u16, families: Families) -> Reach {
        Reach::Local { port, families }
    }

    /// A listener that is taken for one at `addr`.
    async fn bound(addr: &str) -> BoundAddr {
        let addr: SocketAddr = addr.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let families = match addr.ip() {
            IpAddr::V4(_) => Families::V4,
            IpAddr::V6(ip) if ip.is_unspecified() => Families::Both,
            IpAddr::V6(_) => Families::V6,
        };
        BoundAddr { listener, addr, families }
    }

    async fn registered(set: impl Fn(&mut Common), listen: &str, control: Option<&str>) -> Advertise {
        let mut common = Common::of(&Process::new("test", "0")).unwrap();
        set(&mut common);
        let control = match control {
            Some(control) => Some(bound(control).await),
            None => None,
        };
        advertise(&common, &bound(listen).await, control.as_ref())
    }

    #[tokio::test]
    async fn wildcards_are_registered_as_an_address_that_others_can_reach() {
        use Families::{Both, V4};
        for (listen, control, addr, control_addr) in [
            ("10.0.0.5:1", Some("10.0.0.5:2"), at("10.0.0.5:1"), Some(at("10.0.0.5:2"))),
            ("10.0.0.5:1", Some("0.0.0.0:2"), at("10.0.0.5:1"), Some(local(2, V4))),
            ("0.0.0.0:1", Some("10.0.0.5:2"), local(1, V4), Some(at("10.0.0.5:2"))),
            ("[::]:1", Some("[::]:2"), local(1, Both), Some(local(2, Both))),
            ("[::1]:1", None, at("[::1]:1"), None),
            ("0.0.0.0:1", None, local(1, V4), None),
        ] {
            let got = registered(|_| {}, listen, control).await;
            assert_eq!(got, Advertise { addr, control_addr }, "{listen} {control:?}");
        }
        for (listen, control, control_addr) in [
            ("0.0.0.0:1", Some("0.0.0.0:2"), Some(at("edge.example:2"))),
            ("0.0.0.0:1", Some("10.0.0.5:2"), Some(at("10.0.0.5:2"))),
            ("10.0.0.5:1", Some("0.0.0.0:2"), Some(at("edge.example:2"))),
            ("10.0.0.5:1", None, None),
        ] {
            let set = |common: &mut Common| common.advertise = Some("edge.example:80".to_owned());
            let got = registered(set, listen, control).await;
            assert_eq!(got, Advertise { addr: at("edge.example:80"), control_addr }, "{listen} {control:?}");
        }
    }

    #[tokio::test]
    async fn a_host_is_registered_with_the_bound_ports() {
        for (host, addr, control) in [
            ("fd00::5", "[fd00::5]:1", "[fd00::5]:2"),
            ("[fd00::5]", "[fd00::5]:1", "[fd00::5]:2"),
            ("10.0.0.7", "10.0.0.7:1", "10.0.0.7:2"),
            ("log-0.log", "log-0.log:1", "log-0.log:2"),
        ] {
            let set = |common: &mut Common| common.advertise_host = Some(host.to_owned());
            let got = registered(set, "[::]:1", Some("[::]:2")).await;
            assert_eq!(got, Advertise { addr: at(addr), control_addr: Some(at(control)) }, "{host}");
        }
    }

    #[tokio::test]
    async fn the_ipv6_wildcard_takes_ipv4_too() {
        let bound = listen("[::]:0".parse().unwrap(), "listen", "test").unwrap();
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, bound.addr.port()));
        let (connected, accepted) = tokio::join!(tokio::net::TcpStream::connect(v4), bound.listener.accept());
        assert_eq!(connected.unwrap().local_addr().unwrap().ip(), accepted.unwrap().1.ip().to_canonical());
    }
}
