//! Which service a request target is for. Pure.
//!
//! The first path segment is the service's name, compared byte for byte. Path and query are passed on unchanged, so a
//! path that two parsers could read differently is refused rather than normalized: dot segments in any spelling,
//! encoded or literal backslashes, control characters and, unless the service allows it, an encoded slash. The name is
//! not percent-decoded: no service has a name that needs it.

use http::uri::{Authority, Uri};
use hubspoke_protocol::RESERVED_NAMES;

/// Why a target was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadTarget {
    #[error("the path has a dot segment")]
    DotSegment,
    #[error("the path has a backslash")]
    Backslash,
    #[error("the path has an encoded NUL or another control character")]
    Control,
    #[error("the path has a percent sign that is not followed by two hexadecimal digits")]
    Escape,
    #[error("the path has an encoded slash, which this service does not allow")]
    EncodedSlash,
    #[error("the request target is neither a path nor an absolute http URI without user information")]
    Form,
}

/// A request target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestTarget<'a> {
    /// `*`: for the gateway itself.
    Asterisk,
    /// A path. `authority` is the host of a target in absolute form.
    Path { service: &'a str, path: CheckedPath<'a>, authority: Option<&'a Authority> },
}

/// A path that passed all checks except the one that depends on the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckedPath<'a> {
    /// As received.
    pub(crate) path: &'a str,
    /// Whether it contains `%2f`.
    pub(crate) encoded_slash: bool,
}

/// Checks a request target.
pub(crate) fn target(uri: &Uri) -> Result<RequestTarget<'_>, BadTarget> {
    let path = uri.path();
    if path == "*" {
        return Ok(RequestTarget::Asterisk);
    }
    let authority = match (uri.scheme_str(), uri.authority()) {
        (None, None) => None,
        (Some("http" | "https"), Some(authority)) if !authority.as_str().contains('@') => Some(authority),
        _ => return Err(BadTarget::Form),
    };
    let path = check_path(path)?;
    Ok(RequestTarget::Path { service: first_segment(path.path), path, authority })
}

/// Whether a service of this name may be public at all. `own` is the gateway's registered name.
pub(crate) fn may_be_public(service: &str, own: &str) -> bool {
    service != own && !RESERVED_NAMES.contains(&service)
}

/// Whether a path is one of those that members serve to the registry and to operators, in any spelling that a server may
/// take for it. For paths that do not begin with the name of their service.
pub(crate) fn is_for_members(path: &str) -> bool {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len().min(64));
    let mut at = 0;
    while let Some(&byte) = bytes.get(at).filter(|_| decoded.len() < 64) {
        let (byte, len) = match byte {
            b'%' => (decode(bytes, at).unwrap_or(byte), 3),
            _ => (byte, 1),
        };
        match byte {
            b'/' if decoded.is_empty() => {}
            b'/' | b';' => break,
            _ => decoded.push(byte),
        }
        at += len;
    }
    RESERVED_NAMES.iter().any(|name| decoded.eq_ignore_ascii_case(name.as_bytes()))
}

fn first_segment(path: &str) -> &str {
    let rest = path.strip_prefix('/').unwrap_or(path);
    rest.split_once('/').map_or(rest, |(first, _)| first)
}

fn check_path(path: &str) -> Result<CheckedPath<'_>, BadTarget> {
    if !path.starts_with('/') {
        return Err(BadTarget::Form);
    }
    let bytes = path.as_bytes();
    let mut encoded_slash = false;
    // The length of a segment of dots (or %2e) alone so far; `None` once it has anything else.
    let mut dots: Option<u8> = None;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let (decoded, len) = match byte {
            b'%' => (decode(bytes, at).ok_or(BadTarget::Escape)?, 3),
            _ => (byte, 1),
        };
        match decoded {
            b'\\' => return Err(BadTarget::Backslash),
            0..=0x1f | 0x7f => return Err(BadTarget::Control),
            b'/' if len == 3 => encoded_slash = true,
            _ => {}
        }
        match decoded {
            // A server that decodes `%2f` ends the segment there, so check both sides.
            b'/' => {
                check_segment(dots)?;
                dots = Some(0);
            }
            b'.' => dots = dots.map(|n| n.saturating_add(1)),
            // Servers that strip path parameters read `/..;x/` as `/../`.
            b';' => {
                check_segment(dots)?;
                dots = None;
            }
            _ => dots = None,
        }
        at += len;
    }
    check_segment(dots)?;
    Ok(CheckedPath { path, encoded_slash })
}

fn check_segment(dots: Option<u8>) -> Result<(), BadTarget> {
    match dots {
        Some(1 | 2) => Err(BadTarget::DotSegment),
        _ => Ok(()),
    }
}

fn decode(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |i: usize| char::from(*bytes.get(at + i)?).to_digit(16);
    u8::try_from(digit(1)? * 16 + digit(2)?).ok()
}

#[cfg(test)]
mod tests;
