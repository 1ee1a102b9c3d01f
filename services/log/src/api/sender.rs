//! Who sends a request that names no member.

use std::net::IpAddr;

use axum::http::request::Parts;
use hubspoke_chassis::server::ConnectionHandle;
use hubspoke_client::Directory;

/// The registered name of the gateway.
pub(crate) const GATEWAY_SERVICE: &str = "gateway";
/// In a request from the gateway: for whom it is. The gateway writes it itself; only a trusted proxy's list is continued.
const X_FORWARDED_FOR: &str = "x-forwarded-for";
/// Longest list of addresses that is kept, in bytes. The last address is the one that the gateway has seen itself.
const MAX_LIST: usize = 200;

/// The address of the caller: that of the connection or, if it is a gateway's, the one that the gateway names. `None`
/// only in tests without a connection.
///
/// Only registered gateways are believed. From anybody else the header would be a claim, by which a sender could take
/// another one's keys.
pub(super) fn client_of(parts: &Parts, directory: &Directory) -> Option<String> {
    let peer = parts.extensions.get::<ConnectionHandle>()?.peer()?.ip().to_canonical();
    let forwarded = parts.headers.get(X_FORWARDED_FOR).and_then(|list| list.to_str().ok());
    match forwarded.filter(|_| is_gateway(peer, directory)) {
        Some(list) if !list.trim().is_empty() => Some(tail(list.trim()).to_owned()),
        _ => Some(peer.to_string()),
    }
}

fn is_gateway(peer: IpAddr, directory: &Directory) -> bool {
    let view = directory.view();
    let gateways = view.instances(GATEWAY_SERVICE).unwrap_or_default();
    gateways.iter().any(|gateway| host(&gateway.addr) == Some(peer))
}

/// The IP address in `IP:PORT`.
fn host(addr: &str) -> Option<IpAddr> {
    let (host, _) = addr.rsplit_once(':')?;
    let host: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
    Some(host.to_canonical())
}

/// The list, or its last address if it is very long.
fn tail(list: &str) -> &str {
    if list.len() <= MAX_LIST {
        return list;
    }
    let last = list.rsplit(',').next().unwrap_or_default().trim();
    last.get(..MAX_LIST).unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use hubspoke_protocol::{ServiceInfo, ServiceLists};

    use super::*;

    #[test]
    fn only_an_address_of_a_registered_gateway_is_a_gateway() {
        let gateways = ["10.0.0.1:20001", "[fd00::1]:20001", "gateway:20001", "[::ffff:10.0.0.2]:1"];
        let gateways = gateways.map(|addr| ServiceInfo::new(GATEWAY_SERVICE, addr)).into();
        let visits = vec![ServiceInfo::new("visit", "10.0.0.3:20003")];
        let lists = [(GATEWAY_SERVICE.to_owned(), gateways), ("visit".to_owned(), visits)];
        let directory = Directory::from(ServiceLists(lists.into()));
        for (peer, expected) in [
            ("10.0.0.1", true),
            ("fd00::1", true),
            ("10.0.0.2", true),
            ("10.0.0.3", false),
            ("10.0.0.10", false),
            ("fd00::2", false),
        ] {
            assert_eq!(is_gateway(peer.parse().unwrap(), &directory), expected, "{peer}");
        }
        assert!(!is_gateway("10.0.0.1".parse().unwrap(), &Directory::default()));
    }

    #[test]
    fn a_long_list_is_cut_to_the_address_that_the_gateway_has_seen() {
        assert_eq!(tail("203.0.113.7, 10.0.0.5"), "203.0.113.7, 10.0.0.5");
        assert_eq!(tail(&format!("{}10.0.0.5", "203.0.113.7, ".repeat(20))), "10.0.0.5");
        assert_eq!(tail(&"x".repeat(300)).len(), MAX_LIST);
    }
}
