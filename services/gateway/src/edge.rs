//! Checks on the parsed head of a request before anything else is done with it. `hubspoke_http1` has checked before, on
//! the raw bytes, what a parsed head no longer shows. Pure.

use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Version, request};

use hubspoke_http1::{HeadError, HeadLimits, is_disguised_framing_field};

/// The value of `Allow`.
pub(crate) const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Why a parsed head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHead {
    #[error("CONNECT and TRACE are not allowed")]
    Method,
    #[error("a request needs exactly one Host")]
    HostCount,
    #[error("Host is not a valid host with an optional port")]
    HostSyntax,
    #[error("Host and :authority differ")]
    HostsDiffer,
}

/// Refuses the methods that the gateway doesn't forward.
pub(crate) fn check_method(method: &Method) -> Result<(), BadHead> {
    if *method == Method::CONNECT || *method == Method::TRACE { Err(BadHead::Method) } else { Ok(()) }
}

/// The checks of `hubspoke_http1`, on a parsed HTTP/2 head, as far as its parser has not made them: the instance may
/// get the request as HTTP/1.
pub(crate) fn check_h2(parts: &request::Parts, limits: HeadLimits) -> Result<(), HeadError> {
    if parts.uri.path_and_query().map_or(0, |target| PathAndQuery::as_str(target).len()) > limits.target {
        return Err(HeadError::TargetTooLong);
    }
    if parts.headers.len() > limits.fields {
        return Err(HeadError::TooManyFields);
    }
    if parts.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(HeadError::ContentLength);
    }
    let disguised = |name: &HeaderName| *name != CONTENT_LENGTH && is_disguised_framing_field(name.as_str());
    if parts.headers.keys().any(disguised) {
        return Err(HeadError::DisguisedField);
    }
    Ok(())
}

/// The host that a request is for; `None` for HTTP/1.0 without one.
///
/// In HTTP/1.1 it is the `Host` field, which must be there exactly once even if an absolute-form target overrides it.
/// In HTTP/2 it is `:authority`, and a `Host` field must be equal to it.
pub(crate) fn host(
    parts: &request::Parts,
    target: Option<&Authority>,
) -> Result<Option<HeaderValue>, BadHead> {
    let header = host_header(&parts.headers)?;
    if let Some(value) = header {
        check_host(value.as_bytes())?;
    }
    match parts.version {
        Version::HTTP_2 => {
            let authority = parts.uri.authority();
            if let (Some(authority), Some(header)) = (authority, header)
                && !authority.as_str().as_bytes().eq_ignore_ascii_case(header.as_bytes())
            {
                return Err(BadHead::HostsDiffer);
            }
            match (authority, header) {
                (Some(authority), _) => authority_value(authority).map(Some),
                (None, Some(header)) => Ok(Some(header.clone())),
                (None, None) => Err(BadHead::HostCount),
            }
        }
        version => {
            if header.is_none() && version != Version::HTTP_10 {
                return Err(BadHead::HostCount);
            }
            match target {
                Some(authority) => authority_value(authority).map(Some),
                None => Ok(header.cloned()),
            }
        }
    }
}

fn host_header(headers: &HeaderMap) -> Result<Option<&HeaderValue>, BadHead> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (first, None) => Ok(first),
        _ => Err(BadHead::HostCount),
    }
}

fn authority_value(authority: &Authority) -> Result<HeaderValue, BadHead> {
    let text = authority.as_str();
    check_host(text.as_bytes())?;
    HeaderValue::from_str(text).map_err(|_| BadHead::HostSyntax)
}

/// `uri-host [":" port]` of RFC 9112, not empty and without userinfo.
fn check_host(host: &[u8]) -> Result<(), BadHead> {
    let ok = match host.strip_prefix(b"[") {
        Some(rest) => {
            let end = rest.iter().position(|&b| b == b']');
            end.is_some_and(|end| {
                let (literal, after) = rest.split_at(end);
                let v6 =
                    std::str::from_utf8(literal).is_ok_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok());
                v6 && (after == b"]" || after.strip_prefix(b"]:").is_some_and(is_port))
            })
        }
        None => {
            let (name, port) = match host.iter().position(|&b| b == b':') {
                Some(colon) => (&host[..colon], host.get(colon + 1..)),
                None => (host, None),
            };
            let byte_ok = |b: &u8| {
                matches!(
                    b,
                    b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z'
                        | b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
                )
            };
            !name.is_empty() && name.len() <= 253 && name.iter().all(byte_ok) && port.is_none_or(is_port)
        }
    };
    if ok { Ok(()) } else { Err(BadHead::HostSyntax) }
}

/// A port's digits. There may be none: RFC 3986 allows `example.org:`.
fn is_port(digits: &[u8]) -> bool {
    let next = |n: u16, b: &u8| n.checked_mul(10)?.checked_add(char::from(*b).to_digit(10)?.try_into().ok()?);
    digits.iter().try_fold(0, next).is_some()
}

#[cfg(test)]
mod tests;
