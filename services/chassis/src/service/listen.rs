//! The addresses that a service binds and registers.

use std::net::SocketAddr;

use hubspoke_client::membership::{Advertise, Reach};
use tokio::net::{TcpListener, TcpSocket};

use super::error::BindError;

/// Connections that may wait to be accepted. If the queue is full, a connecting client loses a second to a retransmit,
/// so it is as long as Linux allows by default (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// Binds `addr`, which the configuration key `key` sets.
pub(super) async fn listen(
    addr: SocketAddr,
    key: &'static str,
) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |source| BindError::Listen { addr, key, source };
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    socket.set_reuseaddr(true).map_err(failed)?; // a restart need not wait for connections in TIME_WAIT
    socket.bind(addr).map_err(failed)?;
    let listener = socket.listen(BACKLOG).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// The addresses to register. A bound address is registered unchanged unless it is a wildcard, which is replaced by the
/// host of `advertise` or, without one, by the local address from which the registry is reached.
pub(super) fn advertise(advertise: Option<&str>, addr: SocketAddr, control: Option<SocketAddr>) -> Advertise {
    let host = advertise.map(|advertise| advertise.rsplit_once(':').map_or(advertise, |(host, _)| host));
    let reach = |bound: SocketAddr| match host {
        _ if !bound.ip().is_unspecified() => Reach::At(bound.to_string()),
        Some(host) => Reach::At(format!("{host}:{}", bound.port())),
        None => Reach::Local(bound.port()),
    };
    let addr = advertise.map_or_else(|| reach(addr), |advertise| Reach::At(advertise.to_owned()));
    Advertise { addr, control_addr: control.map(reach) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_registered_as_an_address_that_others_can_reach() {
        let at = |addr: &str| Reach::At(addr.to_owned());
        let bare = [
            ("10.0.0.5:1", Some("10.0.0.5:2"), at("10.0.0.5:1"), Some(at("10.0.0.5:2"))),
            ("10.0.0.5:1", Some("0.0.0.0:2"), at("10.0.0.5:1"), Some(Reach::Local(2))),
            ("0.0.0.0:1", Some("10.0.0.5:2"), Reach::Local(1), Some(at("10.0.0.5:2"))),
            ("[::]:1", Some("[::]:2"), Reach::Local(1), Some(Reach::Local(2))),
            ("[::1]:1", None, at("[::1]:1"), None),
            ("0.0.0.0:1", None, Reach::Local(1), None),
        ];
        for (listen, control, addr, control_addr) in bare {
            let bound = control.map(|control| control.parse().unwrap());
            let got = advertise(None, listen.parse().unwrap(), bound);
            assert_eq!(got, Advertise { addr, control_addr }, "{listen} {control:?}");
        }
        let named = [
            ("0.0.0.0:1", Some("0.0.0.0:2"), Some(at("edge.example:2"))),
            ("0.0.0.0:1", Some("10.0.0.5:2"), Some(at("10.0.0.5:2"))),
            ("10.0.0.5:1", Some("0.0.0.0:2"), Some(at("edge.example:2"))),
            ("10.0.0.5:1", None, None),
        ];
        for (listen, control, control_addr) in named {
            let bound = control.map(|control| control.parse().unwrap());
            let got = advertise(Some("edge.example:80"), listen.parse().unwrap(), bound);
            assert_eq!(got, Advertise { addr: at("edge.example:80"), control_addr }, "{listen} {control:?}");
        }
    }
}
