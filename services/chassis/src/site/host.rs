use std::net::Ipv6Addr;

use axum::http::{HeaderMap, Uri, Version, header};

use super::error::SiteError;

/// The host that a request is for, with its port if it names one; `None` for HTTP/1.0 without `Host`.
///
/// In HTTP/1.1 there is exactly one `Host`, also if an absolute-form target overrides it (RFC 9112, sections 3.2 and
/// 3.2.2). In HTTP/2 it is `:authority`, and a `Host` must be equal to it (RFC 9113, section 8.3.1).
///
/// # Errors
/// [`SiteError`] if the request has no host, several, or an invalid one.
pub fn request_host<'a>(
    version: Version,
    uri: &'a Uri,
    headers: &'a HeaderMap,
) -> Result<Option<&'a str>, SiteError> {
    let mut fields = headers.get_all(header::HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (first, None) => first.map(|value| value.to_str().map_err(|_| SiteError::HostSyntax)).transpose()?,
        _ => return Err(SiteError::HostCount),
    };
    let target = uri.authority().map(http::uri::Authority::as_str);
    if target.or(field).is_none() && version != Version::HTTP_10
        || field.is_none() && version == Version::HTTP_11
    {
        return Err(SiteError::HostCount);
    }
    if let (Version::HTTP_2, Some(target), Some(field)) = (version, target, field)
        && !target.eq_ignore_ascii_case(field)
    {
        return Err(SiteError::HostsDiffer);
    }
    if [target, field].into_iter().flatten().any(|host| name_of(host).is_none()) {
        return Err(SiteError::HostSyntax);
    }
    Ok(target.or(field))
}

/// The name in `uri-host [":" port]` (RFC 9112, section 3.2), an IPv6 address without its brackets; `None` if it is not
/// a valid host.
pub(super) fn name_of(host: &str) -> Option<&str> {
    let is_port = |digits: &str| {
        digits.is_empty() || digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok()
    };
    if let Some(rest) = host.strip_prefix('[') {
        let (v6, port) = rest.split_once(']')?;
        let port_is_valid = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return (v6.parse::<Ipv6Addr>().is_ok() && port_is_valid).then_some(v6);
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&b);
    ((1..=253).contains(&name.len()) && name.bytes().all(is_allowed) && is_port(port)).then_some(name)
}
