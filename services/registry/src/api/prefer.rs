//! `Prefer: wait=SECONDS` (RFC 7240, section 4.3): how long a client wants to wait for the complete effect of its call.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

const PREFER: &str = "prefer";
const PREFERENCE_APPLIED: &str = "preference-applied";
/// Longest wait. A client that prefers a longer one waits this long.
const MAX_WAIT: u64 = 10;

/// The wait that a request prefers. Only its first `wait` counts, and an invalid one is ignored.
pub(super) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(',')).filter_map(|text| {
        let (name, value) = text.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim())
    });
    let value = preferences.next()?;
    let seconds = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Duration::from_secs(seconds.parse().unwrap_or(u64::MAX).min(MAX_WAIT)))
}

/// The header that names the wait that was applied.
pub(super) fn applied(wait: Duration) -> Option<(HeaderName, HeaderValue)> {
    let value = HeaderValue::try_from(format!("wait={}", wait.as_secs())).ok()?;
    Some((HeaderName::from_static(PREFERENCE_APPLIED), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_valid_wait_counts_and_is_bounded() {
        let of = |values: &[&'static str]| {
            let header =
                |value: &&'static str| (HeaderName::from_static(PREFER), HeaderValue::from_static(value));
            wait(&values.iter().map(header).collect()).map(|wait| wait.as_secs())
        };
        for (values, seconds) in [
            (&["wait=1"][..], Some(1)),
            (&["respond-async, WAIT = \"3\" ; x=y"], Some(3)),
            (&["return=minimal", "wait=2"], Some(2)),
            (&["wait=2, wait=5"], Some(2)),
            (&["wait=0"], Some(0)),
            (&["wait=3600"], Some(MAX_WAIT)),
            (&["wait=99999999999999999999999999"], Some(MAX_WAIT)),
            (&["wait=-1"], None),
            (&["wait=+1"], None),
            (&["wait=1.5"], None),
            (&["wait="], None),
            (&["wait"], None),
            (&["await=1"], None),
            (&[], None),
        ] {
            assert_eq!(of(values), seconds, "{values:?}");
        }
    }
}
