//! Services that do not know the prefix below which they are reached: it is removed from the path of a request, and put
//! back in front of the paths that a response names. Pure.

use http::HeaderMap;
use http::header::{CONTENT_LOCATION, HeaderValue, LOCATION, SET_COOKIE};
use http::uri::PathAndQuery;

/// The path and query that a service gets: what follows `/NAME`, beginning with exactly one slash, or a server could take
/// the next segment for a host.
pub(crate) fn strip(path: &PathAndQuery, prefix: &HeaderValue) -> PathAndQuery {
    let rest = path.as_str().strip_prefix(prefix.to_str().unwrap_or_default()).unwrap_or_default();
    let rest = format!("/{}", rest.trim_start_matches('/'));
    PathAndQuery::try_from(rest).unwrap_or_else(|_| PathAndQuery::from_static("/"))
}

/// What is reported as removed: a trusted proxy's prefix, if there is one, and the gateway's. Any other was removed.
pub(super) fn report(outer: Option<&HeaderValue>, prefix: &HeaderValue) -> HeaderValue {
    let outer = outer.map_or(&b""[..], |outer| outer.as_bytes()).trim_ascii();
    let outer = outer.strip_suffix(b"/").unwrap_or(outer);
    HeaderValue::from_bytes(&[outer, prefix.as_bytes()].concat()).unwrap_or_else(|_| prefix.clone())
}

/// Puts the prefix back into a response's fields: the paths of `Location`, also in an absolute URL of the `host` that was
/// asked for, and of cookies. What begins with the prefix already is left alone: the service has read
/// `X-Forwarded-Prefix`, whose value was `reported`.
pub(crate) fn restore(headers: &mut HeaderMap, prefix: &str, reported: &[u8], host: Option<&HeaderValue>) {
    let reported = std::str::from_utf8(reported).unwrap_or(prefix);
    let known = [prefix, reported];
    for name in [LOCATION, CONTENT_LOCATION] {
        if let Some(value) = headers.get(&name).and_then(|value| location(value, prefix, known, host)) {
            headers.insert(name, value);
        }
    }
    if headers.contains_key(SET_COOKIE) {
        let cookies: Vec<_> =
            headers.get_all(SET_COOKIE).iter().map(|value| cookie(value, prefix, known)).collect();
        headers.remove(SET_COOKIE);
        for value in cookies {
            headers.append(SET_COOKIE, value);
        }
    }
}

fn location(
    value: &HeaderValue,
    prefix: &str,
    known: [&str; 2],
    host: Option<&HeaderValue>,
) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    let (origin, path) = match text.split_once("://") {
        Some(("http" | "https", rest)) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at_checked(end)?;
            if !authority.as_bytes().eq_ignore_ascii_case(host?.as_bytes()) {
                return None;
            }
            (text.strip_suffix(path)?, path)
        }
        // A relative reference, or one to another host, needs no prefix.
        _ if !text.starts_with('/') || text.starts_with("//") => return None,
        _ => ("", text),
    };
    if known.iter().any(|known| is_below(path, known)) {
        return None;
    }
    HeaderValue::try_from(format!("{origin}{prefix}{path}")).ok()
}

fn cookie(value: &HeaderValue, prefix: &str, known: [&str; 2]) -> HeaderValue {
    let Ok(text) = value.to_str() else { return value.clone() };
    let attribute = |part: &str| {
        let (name, path) = part.split_once('=')?;
        let path = path.trim();
        let is_path = name.trim().eq_ignore_ascii_case("path") && path.starts_with('/');
        let is_new = is_path && !known.iter().any(|known| is_below(path, known));
        is_new.then(|| format!(" Path={prefix}{path}"))
    };
    // The first part is the cookie's own name and value.
    let parts = text.split(';').enumerate();
    let parts: Vec<String> =
        parts.map(|(i, part)| attribute(part).filter(|_| i > 0).unwrap_or_else(|| part.to_owned())).collect();
    HeaderValue::try_from(parts.join(";")).unwrap_or_else(|_| value.clone())
}

/// Whether a path is the prefix or below it.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#', ';']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_gets_what_follows_its_prefix() {
        for (path, rest) in [
            ("/shop", "/"),
            ("/shop/", "/"),
            ("/shop?q=1", "/?q=1"),
            ("/shop/a%20b/?q=/shop", "/a%20b/?q=/shop"),
            ("/shop/shop", "/shop"),
            ("/shop//evil.example/x", "/evil.example/x"),
        ] {
            assert_eq!(
                strip(&path.parse().unwrap(), &HeaderValue::from_static("/shop")).as_str(),
                rest,
                "{path}"
            );
        }
    }

    fn restored(name: http::HeaderName, value: &str) -> String {
        let mut headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_str(value).unwrap())]);
        let host = HeaderValue::from_static("hub.example:20001");
        restore(&mut headers, "/shop", b"/outer/shop", Some(&host));
        headers[name].to_str().unwrap().to_owned()
    }

    #[test]
    fn a_location_gets_the_prefix_once() {
        for (value, expected) in [
            ("/login?next=/", "/shop/login?next=/"),
            ("/", "/shop/"),
            ("/shopping", "/shop/shopping"),
            ("/shop/login", "/shop/login"),
            ("/outer/shop/login", "/outer/shop/login"),
            ("/shop", "/shop"),
            ("login", "login"),
            ("?page=2", "?page=2"),
            ("//cdn.example/x", "//cdn.example/x"),
            ("http://hub.example:20001/login", "http://hub.example:20001/shop/login"),
            ("https://HUB.example:20001", "https://HUB.example:20001/shop"),
            ("http://hub.example/login", "http://hub.example/login"),
            ("https://accounts.example/login", "https://accounts.example/login"),
        ] {
            assert_eq!(restored(LOCATION, value), expected, "{value}");
        }
    }

    #[test]
    fn the_path_of_a_cookie_gets_the_prefix_once() {
        for (value, expected) in [
            ("id=1; Path=/; HttpOnly", "id=1; Path=/shop/; HttpOnly"),
            ("id=1;path=/admin", "id=1; Path=/shop/admin"),
            ("id=1; Path=/shop", "id=1; Path=/shop"),
            ("id=1; Secure", "id=1; Secure"),
            ("path=/; Secure", "path=/; Secure"),
        ] {
            assert_eq!(restored(SET_COOKIE, value), expected, "{value}");
        }
        let mut headers = HeaderMap::new();
        headers.append(SET_COOKIE, HeaderValue::from_static("a=1; Path=/"));
        headers.append(SET_COOKIE, HeaderValue::from_static("b=2; Path=/"));
        restore(&mut headers, "/shop", b"/shop", None);
        let all: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(all, ["a=1; Path=/shop/", "b=2; Path=/shop/"]);
    }
}
