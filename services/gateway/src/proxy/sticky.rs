//! The key by which requests of one user go to one instance. Pure.

use http::HeaderMap;

use crate::config::Sticky;

/// The key of a request; `None` if it has none.
pub(super) fn key(sticky: Option<&Sticky>, headers: &HeaderMap) -> Option<Vec<u8>> {
    match sticky? {
        Sticky::Header(name) => headers.get(name).map(|value| value.as_bytes().to_vec()),
        Sticky::Cookie(name) => {
            let all = headers.get_all(http::header::COOKIE).iter().filter_map(|value| value.to_str().ok());
            all.flat_map(|cookies| cookies.split(';'))
                .filter_map(|cookie| cookie.trim().split_once('='))
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_bytes().to_vec())
        }
    }
}
