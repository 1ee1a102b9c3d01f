//! Host names, as requests have them. Pure.

use std::borrow::Cow;

/// The name in a valid `Host`, without its port and a trailing dot; `None` for an IP address.
pub(crate) fn name_of(host: &[u8]) -> Option<&str> {
    let name = host.split(|&b| b == b':').next()?;
    let name = name.strip_suffix(b".").unwrap_or(name);
    // An IPv6 address is in brackets, and the last label of a name is not a number.
    let last = name.rsplit(|&b| b == b'.').next()?;
    let is_address = name.starts_with(b"[") || last.iter().all(u8::is_ascii_digit);
    if is_address { None } else { std::str::from_utf8(name).ok() }
}

/// A valid `Host` without its port and, after a name, without a trailing dot. An IPv6 address keeps its brackets.
pub(crate) fn without_port(host: &[u8]) -> Option<&str> {
    let host = std::str::from_utf8(host).ok()?;
    match host.split_once(']') {
        Some((v6, _)) => host.get(..=v6.len()),
        None => host.split(':').next().map(|name| name.strip_suffix('.').unwrap_or(name)),
    }
}

pub(crate) fn lower(text: &str) -> Cow<'_, str> {
    match text.bytes().any(|b| b.is_ascii_uppercase()) {
        true => text.to_ascii_lowercase().into(),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_loses_its_port_and_keeps_its_brackets() {
        for (host, expected) in [
            ("shop.example:80", "shop.example"),
            ("shop.example.", "shop.example"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(without_port(host.as_bytes()), Some(expected));
        }
    }

    #[test]
    fn the_name_of_a_host_has_no_port() {
        for (host, expected) in [
            ("shop.localhost:20001", Some("shop.localhost")),
            ("shop.localhost.", Some("shop.localhost")),
            ("shop1:80", Some("shop1")),
            ("127.0.0.1:20001", None),
            ("127.0.0.1", None),
            ("[::1]:20001", None),
            (":80", None),
        ] {
            assert_eq!(name_of(host.as_bytes()), expected, "{host}");
        }
    }
}
