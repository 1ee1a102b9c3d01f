//! The address that a request comes from: the peer's, or the one that trusted proxies report. Limits and the access log
//! use it. Pure.
//!
//! `X-Forwarded-For` is read from its end, where the nearest proxy has written, up to the first address that is not a
//! trusted proxy: whatever stands before it is that client's own claim. `Forwarded` (RFC 7239) counts if there is no
//! `X-Forwarded-For`.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::FORWARDED;

use crate::headers::X_FORWARDED_FOR;

/// The caller behind a trusted proxy at `peer`: the nearest address that is not one of `is_trusted`, or the farthest
/// that is known if the list is invalid from there on.
pub(crate) fn behind(peer: IpAddr, headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let lists: Vec<&str> =
        headers.get_all(X_FORWARDED_FOR).iter().filter_map(|list| list.to_str().ok()).collect();
    if headers.contains_key(X_FORWARDED_FOR) {
        let hops = lists.iter().rev().flat_map(|list| list.rsplit(',')).map(address);
        return nearest(peer, hops, is_trusted);
    }
    let lists: Vec<&str> = headers.get_all(FORWARDED).iter().filter_map(|list| list.to_str().ok()).collect();
    let elements: Vec<&str> = lists.iter().flat_map(|list| split_unquoted(list, ',')).collect();
    nearest(peer, elements.iter().rev().map(|element| forwarded_for(element)), is_trusted)
}

/// Walks from the nearest hop to the farthest.
fn nearest(
    peer: IpAddr,
    hops: impl Iterator<Item = Option<IpAddr>>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut caller = peer;
    for hop in hops {
        let Some(hop) = hop else { break };
        caller = hop;
        if !is_trusted(hop) {
            break;
        }
    }
    caller
}

/// The `for` of an element of `Forwarded`, if it is an address.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = split_unquoted(element, ';').into_iter().filter_map(|pair| pair.split_once('='));
    let mut found = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    let (_, value) = found.next()?;
    address(value.trim().trim_matches('"'))
}

/// An address as proxies write it: with or without a port, IPv6 with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse::<IpAddr>().ok();
    ip.or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip())).map(|ip| ip.to_canonical())
}

/// Splits at separators outside quoted strings.
fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|c| {
        let is_escaped = escaped;
        escaped = quoted && !is_escaped && c == '\\';
        quoted ^= c == '"' && !is_escaped;
        c == separator && !quoted
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The caller behind the proxy 10.0.0.1; 10.0.0.0/8 and fd00::/8 are trusted.
    fn caller(fields: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let is_trusted = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => v4.octets()[0] == 10,
            IpAddr::V6(v6) => v6.octets()[0] == 0xfd,
        };
        behind(IpAddr::from([10, 0, 0, 1]), &headers, is_trusted).to_string()
    }

    #[test]
    fn the_caller_is_the_nearest_address_that_is_not_a_trusted_proxy() {
        for (list, expected) in [
            ("203.0.113.7", "203.0.113.7"),
            ("6.6.6.6, 203.0.113.7", "203.0.113.7"),
            ("6.6.6.6, 203.0.113.7, 10.0.0.3,10.0.0.2", "203.0.113.7"),
            ("203.0.113.7:4711", "203.0.113.7"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443, fd00::2", "2001:db8::1"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            // All are proxies: the farthest.
            ("10.0.0.9, 10.0.0.2", "10.0.0.9"),
            // Nothing before an invalid entry is believed.
            ("203.0.113.7, unknown", "10.0.0.1"),
            ("203.0.113.7, nonsense, 10.0.0.2", "10.0.0.2"),
            ("203.0.113.7,", "10.0.0.1"),
            ("", "10.0.0.1"),
            ("1.2.3.4.5", "10.0.0.1"),
        ] {
            assert_eq!(caller(&[("x-forwarded-for", list)]), expected, "{list}");
        }
        let twice = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.7, 10.0.0.2")];
        assert_eq!(caller(&twice), "203.0.113.7");
        assert_eq!(caller(&[]), "10.0.0.1");
    }

    #[test]
    fn forwarded_counts_if_there_is_no_x_forwarded_for() {
        for (list, expected) in [
            ("for=203.0.113.7", "203.0.113.7"),
            ("For=\"203.0.113.7:80\";proto=http;by=10.0.0.1", "203.0.113.7"),
            ("for=6.6.6.6, proto=https; for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=203.0.113.7;host=\"a,for=6.6.6.6\", for=10.0.0.2", "203.0.113.7"),
            ("for=203.0.113.7;host=\"a\\\",for=6.6.6.6\"", "203.0.113.7"),
            ("for=203.0.113.7, for=_hidden", "10.0.0.1"),
            ("for=unknown", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
        ] {
            assert_eq!(caller(&[("forwarded", list)]), expected, "{list}");
        }
        let both = [("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "203.0.113.7")];
        assert_eq!(caller(&both), "203.0.113.7");
    }
}
