//! Another service decides whether a request may pass: whom it asks, and with what. Pure.

use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName, HeaderValue, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri};
use hubspoke_protocol::{RESERVED_NAMES, check_name};

use crate::config::{AuthConfig, InvalidExtra};
use crate::headers::{X_FORWARDED_PREFIX, is_gateways_own};

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// Fields that are about the request's body or its connection, or would make a good answer something else than 2xx.
static NOT_ASKED: [HeaderName; 14] = [
    ACCEPT_ENCODING,
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    EXPECT,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    RANGE,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Which service is asked, and what of its answer is passed on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AuthPolicy {
    pub(crate) service: Box<str>,
    pub(crate) path: PathAndQuery,
    headers: Vec<HeaderName>,
    pub(crate) timeout: Duration,
}

impl AuthPolicy {
    /// The policy of `service`.
    pub(crate) fn new(config: &AuthConfig, service: &str) -> Result<Self, InvalidExtra> {
        let asked = &*config.service;
        if let Err(error) = check_name(asked) {
            return Err(("auth.service", error.to_string()));
        }
        if asked == service || RESERVED_NAMES.contains(&asked) {
            return Err(("auth.service", format!("{asked} can't be asked about its own requests")));
        }
        let path = config.path.parse::<PathAndQuery>().ok().filter(|_| config.path.starts_with('/'));
        let path = path.ok_or_else(|| ("auth.path", format!("{:?} is not a valid path", config.path)))?;
        let field = |name: &String| {
            let field = name.parse::<HeaderName>().ok().filter(|name| !is_gateways_own(name));
            field.ok_or_else(|| ("auth.headers", format!("{name:?} is not a field that can be copied")))
        };
        let headers = config.headers.iter().map(field).collect::<Result<_, _>>()?;
        if config.timeout.is_zero() {
            return Err(("auth.timeout", "a timeout must be longer than 0".to_owned()));
        }
        Ok(Self { service: asked.into(), path, headers, timeout: config.timeout })
    }

    /// The fields with which the service is asked. `headers` are those that the request itself will have; `method` and
    /// `uri` are the client's.
    pub(crate) fn ask(&self, headers: &HeaderMap, method: &Method, uri: &Uri) -> HeaderMap {
        let mut asked = headers.clone();
        for name in &NOT_ASKED {
            asked.remove(name);
        }
        asked.remove(X_FORWARDED_PREFIX);
        let uri = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        for (name, value) in [(X_FORWARDED_METHOD, method.as_str()), (X_FORWARDED_URI, uri)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                asked.insert(name, value);
            }
        }
        asked
    }

    /// Copies the chosen fields of an answer that lets the request pass, in place of the client's own.
    pub(crate) fn copy(&self, answer: &HeaderMap, request: &mut HeaderMap) {
        for name in &self.headers {
            request.remove(name);
            for value in answer.get_all(name) {
                request.append(name, value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(service: &str, path: &str, headers: &[&str]) -> AuthConfig {
        let headers = headers.iter().map(|name| (*name).to_owned()).collect();
        AuthConfig { service: service.to_owned(), path: path.to_owned(), headers, ..AuthConfig::default() }
    }

    #[test]
    fn an_invalid_policy_names_its_key() {
        for (config, key) in [
            (config("", "/", &[]), "auth.service"),
            (config("shop", "/", &[]), "auth.service"),
            (config("metrics", "/", &[]), "auth.service"),
            (config("login", "verify", &[]), "auth.path"),
            (config("login", "/a b", &[]), "auth.path"),
            (config("login", "/", &["x user"]), "auth.headers"),
            (config("login", "/", &["host"]), "auth.headers"),
            (config("login", "/", &["Content-Length"]), "auth.headers"),
            (config("login", "/", &["x-forwarded-for"]), "auth.headers"),
            (AuthConfig { timeout: Duration::ZERO, ..config("login", "/", &[]) }, "auth.timeout"),
        ] {
            assert_eq!(AuthPolicy::new(&config, "shop").unwrap_err().0, key, "{config:?}");
        }
        assert!(AuthPolicy::new(&config("login", "/verify?a=b", &["X-User"]), "shop").is_ok());
    }

    #[test]
    fn the_clients_own_fields_never_pass_for_those_of_the_answer() {
        let policy = AuthPolicy::new(&config("login", "/", &["X-User", "X-Groups"]), "shop").unwrap();
        let map = |fields: &[(&'static str, &str)]| {
            let fields = fields
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
            let mut map = HeaderMap::new();
            for (name, value) in fields {
                map.append(name, value);
            }
            map
        };
        let mut request = map(&[("x-user", "root"), ("x-groups", "a"), ("x-groups", "b"), ("x-other", "c")]);
        policy.copy(&map(&[("x-user", "ada"), ("x-other", "d")]), &mut request);
        assert_eq!(request, map(&[("x-user", "ada"), ("x-other", "c")]));
    }

    #[test]
    fn the_service_is_asked_about_the_request_and_gets_nothing_of_its_body() {
        let policy = AuthPolicy::new(&config("login", "/", &[]), "shop").unwrap();
        let mut headers = HeaderMap::new();
        for name in NOT_ASKED.iter().chain([&http::header::COOKIE, &X_FORWARDED_URI]) {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        let asked = policy.ask(&headers, &Method::PUT, &"http://h/shop/a?b=c".parse().unwrap());
        assert_eq!((asked.len(), &asked["cookie"]), (3, &HeaderValue::from_static("x")));
        assert_eq!(
            (&asked["x-forwarded-method"], &asked["x-forwarded-uri"]),
            (&"PUT".parse().unwrap(), &"/shop/a?b=c".parse().unwrap())
        );
    }
}
