//! The field that tells caches on what a response depends. Pure.

use http::HeaderMap;
use http::header::{HeaderValue, VARY};

/// Adds a field to those on which the response depends.
pub(super) fn add_vary(headers: &mut HeaderMap, name: &'static str) {
    let is_named = |value: &HeaderValue| {
        let mut names = value.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii);
        names.any(|known| known == b"*" || known.eq_ignore_ascii_case(name.as_bytes()))
    };
    if !headers.get_all(VARY).iter().any(is_named) {
        headers.append(VARY, HeaderValue::from_static(name));
    }
}
