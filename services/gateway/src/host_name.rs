//! Host names, as requests and the configuration have them. Pure.

use std::borrow::Cow;
use std::net::IpAddr;

/// Whether this is a host name that a service can have: no IP address, and not one that some clients would read as one.
pub(crate) fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(valid)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253
        && host.split('.').all(is_label)
        && !last.bytes().next().is_some_and(|b| b.is_ascii_digit())
        && host.parse::<IpAddr>().is_err()
}

/// The name in a valid `Host`, without its port and a trailing dot; `None` for an IP address.
pub(crate) fn name_of(host: &[u8]) -> Option<&str> {
    let name = host.split(|&b| b == b':').next()?;
    let name = name.strip_suffix(b".").unwrap_or(name);
    // An IPv6 address is in brackets, and the last label of a name is not a number.
    let last = name.rsplit(|&b| b == b'.').next()?;
    let is_address = name.starts_with(b"[") || last.iter().all(u8::is_ascii_digit);
    if is_address { None } else { std::str::from_utf8(name).ok() }
}

/// The part before `.domain` in a host; case counts for nothing.
pub(crate) fn below<'a>(host: &'a str, domain: &str) -> Option<&'a str> {
    let (rest, end) = host.split_at_checked(host.len().checked_sub(domain.len())?)?;
    if end.eq_ignore_ascii_case(domain) { rest.strip_suffix('.') } else { None }
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
        assert_eq!(below("Shop.LocalHost", "localhost"), Some("Shop"));
        assert_eq!(below("localhost", "localhost"), None);
        assert_eq!(below("shoplocalhost", "localhost"), None);
    }
}
