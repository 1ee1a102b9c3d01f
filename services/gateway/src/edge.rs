//! Checks on the parsed head of a request before anything else is done with it. `hubspoke_http1` has checked before, on
//! the raw bytes, what a parsed head no longer shows. Pure.

use std::net::Ipv6Addr;

use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Version, request};
use hubspoke_http1::{HeadError, HeadLimits, is_disguised_framing_field, request_length};

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
    let mut has_length = false;
    for (name, value) in &parts.headers {
        let value = value.as_bytes();
        // HTTP/1 would trim it, so the instance would get another value (RFC 9113, 8.2.1).
        if matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']) {
            return Err(HeadError::Syntax);
        }
        if name == CONTENT_LENGTH {
            if has_length || request_length(value).is_none() {
                return Err(HeadError::ContentLength);
            }
            has_length = true;
        } else if is_disguised_framing_field(name.as_str()) {
            return Err(HeadError::DisguisedField);
        }
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
    let valid = std::str::from_utf8(host).is_ok_and(|host| match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').is_some_and(|(v6, port)| {
            v6.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        }),
        None => {
            let (name, port) = host.split_once(':').unwrap_or((host, ""));
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&b);
            (1..=253).contains(&name.len()) && name.bytes().all(allowed) && is_port(port)
        }
    });
    if valid { Ok(()) } else { Err(BadHead::HostSyntax) }
}

/// A port's digits. There may be none: RFC 3986 allows `example.org:`.
fn is_port(digits: &str) -> bool {
    digits.is_empty() || digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests;
