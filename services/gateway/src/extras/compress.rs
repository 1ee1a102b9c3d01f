//! Whether a response is compressed, and what its head then says. Pure.

use http::StatusCode;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
};
use hubspoke_http1::content_length;

/// Shorter bodies are not worth it: the head is as long, and the packet is sent anyway.
const MIN_LENGTH: u64 = 1024;
/// Fields with a checksum of what is sent.
static DIGESTS: [HeaderName; 3] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
];

/// A coding that the gateway applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Zstd,
    Gzip,
}

impl Coding {
    /// The coding that a client prefers to none (RFC 9110, 12.5.3); zstd if it has no preference.
    pub(super) fn preferred(request: &HeaderMap) -> Option<Self> {
        let (mut zstd, mut gzip, mut identity, mut any) = (None, None, None, None);
        for value in request.get_all(ACCEPT_ENCODING) {
            for item in value.as_bytes().split(|&b| b == b',') {
                let (name, quality) = accepted(item);
                let known = match name.to_ascii_lowercase().as_slice() {
                    b"zstd" => &mut zstd,
                    b"gzip" | b"x-gzip" => &mut gzip,
                    b"identity" => &mut identity,
                    b"*" => &mut any,
                    _ => continue,
                };
                *known = Some(quality);
            }
        }
        let of = |named: Option<u16>| named.or(any).unwrap_or(0);
        let (zstd, gzip) = (of(zstd), of(gzip));
        let best = zstd.max(gzip);
        let is_wanted = best > 0 && best >= identity.unwrap_or(0);
        is_wanted.then_some(if zstd >= gzip { Self::Zstd } else { Self::Gzip })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// An item of `Accept-Encoding`, and how much it is wanted, from 0 to 1000. A weight that is not valid counts as 0.
fn accepted(item: &[u8]) -> (&[u8], u16) {
    let mut parts = item.split(|&b| b == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| {
        let (key, value) = part.split_at_checked(2)?;
        key.eq_ignore_ascii_case(b"q=").then_some(value)
    });
    (name, weight.map_or(1000, |weight| thousandths(weight).unwrap_or(0)))
}

/// `qvalue` of RFC 9110, 12.4.2.
fn thousandths(weight: &[u8]) -> Option<u16> {
    let (whole, rest) = weight.split_first()?;
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut value = u16::from(*whole).checked_sub(u16::from(b'0')).filter(|whole| *whole <= 1)?;
    for i in 0..3 {
        let digit = digits.get(i).copied().unwrap_or(b'0');
        value = value * 10 + u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    (value <= 1000).then_some(value)
}

/// Whether a response to anything but `HEAD` would be compressed if the client accepts that.
pub(super) fn is_worth_it(status: StatusCode, headers: &HeaderMap) -> bool {
    let has_body = !status.is_informational()
        && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED, StatusCode::RESET_CONTENT].contains(&status);
    let is_whole = status != StatusCode::PARTIAL_CONTENT && !headers.contains_key(CONTENT_RANGE);
    let is_plain = !headers.contains_key(CONTENT_ENCODING)
        && !DIGESTS.iter().any(|name| headers.contains_key(name))
        && !headers.get_all(CACHE_CONTROL).iter().any(|value| has_directive(value, b"no-transform"));
    let length = headers.get(CONTENT_LENGTH).and_then(|length| content_length(length.as_bytes()));
    has_body && is_whole && is_plain && length.is_none_or(|length| length >= MIN_LENGTH) && is_text(headers)
}

/// Makes a response's head that of its compressed form.
pub(super) fn encoded(headers: &mut HeaderMap, coding: Coding) {
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    // Its bytes are others now (RFC 9110, 8.8.3).
    let strong = headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""));
    let weak = strong.and_then(|tag| HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok());
    if let Some(weak) = weak {
        headers.insert(ETAG, weak);
    }
}

/// Whether the type is one of text or of data that compress well. Server-sent events are left alone: each is sent at once.
fn is_text(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((main, sub)) = kind.split_once('/') else { return false };
    match main {
        "text" => sub != "event-stream",
        "application" => {
            ["json", "javascript", "xml", "wasm", "x-ndjson", "x-javascript", "graphql", "manifest+json"]
                .contains(&sub)
                || sub.ends_with("+json")
                || sub.ends_with("+xml")
        }
        "image" => sub.ends_with("+xml") || sub == "bmp",
        "font" => ["ttf", "otf", "collection"].contains(&sub),
        _ => false,
    }
}

fn has_directive(value: &HeaderValue, name: &[u8]) -> bool {
    value.as_bytes().split(|&b| b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn preferred(accept: &str) -> Option<Coding> {
        Coding::preferred(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_str(accept).unwrap())]))
    }

    #[test]
    fn the_client_chooses_the_coding() {
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip", Some(Coding::Gzip)),
            ("X-GZIP", Some(Coding::Gzip)),
            ("zstd;q=0.5, gzip;q=0.8", Some(Coding::Gzip)),
            ("*", Some(Coding::Zstd)),
            ("*;q=0.1, zstd;q=0", Some(Coding::Gzip)),
            ("gzip;q=0", None),
            ("gzip;q=0.000", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip; Q=0.7", Some(Coding::Gzip)),
            ("br", None),
            ("gzip;q=2", None),
            ("gzip;q=", None),
            ("gzip;q=0.12345", None),
            ("", None),
            (",;,", None),
        ] {
            assert_eq!(preferred(accept), expected, "{accept}");
        }
        assert_eq!(Coding::preferred(&HeaderMap::new()), None);
    }

    #[test]
    fn only_what_gains_by_it_is_compressed() {
        let is_worth = |status: u16, fields: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
            }
            is_worth_it(StatusCode::from_u16(status).unwrap(), &headers)
        };
        let html = ("content-type", "text/html; charset=utf-8");
        assert!(
            is_worth(200, &[html])
                && is_worth(404, &[html])
                && is_worth(200, &[html, ("content-length", "1024")])
        );
        for kind in ["application/json", "application/problem+JSON", "image/svg+xml", "application/wasm"] {
            assert!(is_worth(200, &[("content-type", kind)]), "{kind}");
        }
        for kind in [
            "text/event-stream",
            "application/grpc",
            "image/png",
            "application/zip",
            "video/mp4",
            "nonsense",
            "font/woff2",
        ] {
            assert!(!is_worth(200, &[("content-type", kind)]), "{kind}");
        }
        assert!(!is_worth(200, &[]));
        for (status, field) in [
            (200, ("content-length", "1023")),
            (200, ("content-encoding", "br")),
            (200, ("content-encoding", "identity")),
            (206, ("content-range", "bytes 0-1/9")),
            (206, ("x", "y")),
            (200, ("content-range", "bytes 0-1/9")),
            (204, ("x", "y")),
            (304, ("x", "y")),
            (200, ("cache-control", "public, No-Transform")),
            (200, ("content-digest", "sha-256=:x:")),
        ] {
            assert!(!is_worth(status, &[html, field]), "{status} {field:?}");
        }
    }

    #[test]
    fn the_head_of_a_compressed_response_says_so() {
        for (tag, weak) in [("\"a\"", "W/\"a\""), ("W/\"a\"", "W/\"a\""), ("nonsense", "nonsense")] {
            let mut headers = HeaderMap::new();
            headers.insert(ETAG, HeaderValue::from_static(tag));
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("5000"));
            headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            encoded(&mut headers, Coding::Gzip);
            assert_eq!(
                (headers.len(), &headers[ETAG], &headers[CONTENT_ENCODING]),
                (2, &HeaderValue::from_static(weak), &HeaderValue::from_static("gzip"))
            );
        }
    }

    proptest! {
        #[test]
        fn any_preference_is_read(accept in "[ -~]{0,60}") {
            if preferred(&accept).is_some() {
                let lower = accept.to_ascii_lowercase();
                prop_assert!(["zstd", "gzip", "*"].iter().any(|name| lower.contains(name)));
            }
        }
    }
}
