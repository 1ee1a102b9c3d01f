//! Which pages of other origins may use a service (the Fetch standard, 3.3). What browsers learn is only what the
//! configuration lists: nothing that a request says is repeated. Pure.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, ORIGIN,
};
use http::{Method, Uri};

use super::vary::add_vary;
use crate::config::{CorsConfig, InvalidExtra};

/// The fields that browsers read; a service's own give way to the gateway's.
static ANSWERS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

/// Which origins may do what with a service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CorsPolicy {
    /// `None` for every origin.
    origins: Option<Vec<HeaderValue>>,
    credentials: bool,
    methods: HeaderValue,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

/// Whether a request asks what another one may do.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

impl CorsPolicy {
    pub(crate) fn new(config: &CorsConfig) -> Result<Self, InvalidExtra> {
        let is_any = config.origins.iter().any(|origin| origin == "*");
        if config.origins.is_empty() {
            return Err(("cors.origins", "names no origin".to_owned()));
        }
        if is_any && config.origins.len() > 1 {
            return Err(("cors.origins", "\"*\" is every origin; list no other beside it".to_owned()));
        }
        if is_any && config.credentials {
            return Err(("cors.credentials", "can't be true for every origin; list the origins".to_owned()));
        }
        let origins = config.origins.iter().map(|text| {
            origin(text).ok_or_else(|| {
                ("cors.origins", format!("{text:?} is not an origin such as https://app.example.com"))
            })
        });
        let origins = if is_any { None } else { Some(origins.collect::<Result<_, _>>()?) };
        for method in &config.methods {
            if method.parse::<Method>().is_err() || method == "*" {
                return Err(("cors.methods", format!("{method:?} is not a method")));
            }
        }
        Ok(Self {
            origins,
            credentials: config.credentials,
            methods: joined("cors.methods", &config.methods)?.unwrap_or_else(|| HeaderValue::from_static("")),
            headers: fields("cors.headers", &config.headers)?,
            expose: fields("cors.expose", &config.expose)?,
            max_age: HeaderValue::from(config.max_age.as_secs()),
        })
    }

    /// The origin that may use the response to a request; `None` if the page's may not, or none is named.
    pub(super) fn allowed(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let mut named = request.get_all(ORIGIN).iter();
        let (Some(origin), None) = (named.next(), named.next()) else { return None };
        match &self.origins {
            None => Some(HeaderValue::from_static("*")),
            Some(origins) => origins.iter().find(|known| *known == origin).cloned(),
        }
    }

    /// The answer to a preflight.
    pub(super) fn preflight(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        let origin = self.allowed(request);
        self.allow(origin.as_ref(), answer);
        add_vary(answer, "access-control-request-method");
        add_vary(answer, "access-control-request-headers");
        if origin.is_some() {
            answer.remove(ACCESS_CONTROL_EXPOSE_HEADERS);
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
            answer.extend(self.headers.clone().map(|headers| (ACCESS_CONTROL_ALLOW_HEADERS, headers)));
            answer.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        }
    }

    /// Lets this origin read a response, and no other one.
    pub(super) fn allow(&self, origin: Option<&HeaderValue>, response: &mut HeaderMap) {
        for name in &ANSWERS {
            response.remove(name);
        }
        if self.origins.is_some() {
            // Also without an origin: a cache must not give that response to a page.
            add_vary(response, "origin");
        }
        let Some(origin) = origin else { return };
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        response.extend(self.expose.clone().map(|expose| (ACCESS_CONTROL_EXPOSE_HEADERS, expose)));
    }
}

/// An origin as browsers write it: scheme, host in lower case, and a port that is not the scheme's own.
fn origin(text: &str) -> Option<HeaderValue> {
    let text = text.to_ascii_lowercase();
    let uri: Uri = text.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let is_default = matches!((scheme, authority.port_u16()), ("http", Some(80)) | ("https", Some(443)));
    let is_whole = format!("{scheme}://{authority}") == text && !authority.as_str().contains('@');
    if is_whole && !is_default { HeaderValue::try_from(text).ok() } else { None }
}

fn fields(key: &'static str, names: &[String]) -> Result<Option<HeaderValue>, InvalidExtra> {
    for name in names {
        if name == "*" || name.parse::<HeaderName>().is_err() {
            return Err((key, format!("{name:?} is not the name of a field; \"*\" is not possible")));
        }
    }
    joined(key, names)
}

fn joined(key: &'static str, names: &[String]) -> Result<Option<HeaderValue>, InvalidExtra> {
    if names.is_empty() {
        return Ok(None);
    }
    HeaderValue::try_from(names.join(", ")).map(Some).map_err(|_| (key, "is not valid in a field".to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(origins: &[&str]) -> CorsConfig {
        CorsConfig {
            origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            ..CorsConfig::default()
        }
    }

    fn policy(origins: &[&str]) -> CorsPolicy {
        CorsPolicy::new(&config(origins)).unwrap()
    }

    fn asking(origin: &str) -> HeaderMap {
        HeaderMap::from_iter([(ORIGIN, HeaderValue::from_str(origin).unwrap())])
    }

    #[test]
    fn an_invalid_policy_names_its_key() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (config, key) in [
            (config(&[]), "cors.origins"),
            (config(&["*", "https://a.example"]), "cors.origins"),
            (config(&["null"]), "cors.origins"),
            (config(&["app.example"]), "cors.origins"),
            (config(&["https://app.example/"]), "cors.origins"),
            (config(&["https://app.example:443"]), "cors.origins"),
            (config(&["https://u@app.example"]), "cors.origins"),
            (config(&["https://*.example/x"]), "cors.origins"),
            (CorsConfig { credentials: true, ..config(&["*"]) }, "cors.credentials"),
            (CorsConfig { methods: list(&["GET,"]), ..config(&["*"]) }, "cors.methods"),
            (CorsConfig { methods: list(&["*"]), ..config(&["*"]) }, "cors.methods"),
            (CorsConfig { headers: list(&["*"]), ..config(&["*"]) }, "cors.headers"),
            (CorsConfig { expose: list(&["a b"]), ..config(&["*"]) }, "cors.expose"),
        ] {
            assert_eq!(CorsPolicy::new(&config).unwrap_err().0, key, "{config:?}");
        }
    }

    #[test]
    fn a_listed_origin_may_read_a_response_and_any_other_may_not() {
        let policy = policy(&["https://App.example", "http://localhost:3000"]);
        let response = |origin: &str| {
            let mut response: HeaderMap =
                [(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("https://evil.example"))]
                    .into_iter()
                    .collect();
            policy.allow(policy.allowed(&asking(origin)).as_ref(), &mut response);
            assert_eq!(response["vary"], "origin");
            response.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().unwrap().to_owned())
        };
        for origin in ["https://app.example", "http://localhost:3000"] {
            assert_eq!(response(origin).as_deref(), Some(origin));
        }
        for origin in [
            "http://app.example",
            "https://app.example.evil",
            "https://evil.example",
            "null",
            "*",
            "https://APP.example",
        ] {
            assert_eq!(response(origin), None, "{origin}");
        }
        let mut twice = asking("https://app.example");
        twice.append(ORIGIN, HeaderValue::from_static("https://app.example"));
        assert_eq!(policy.allowed(&twice), None);
    }

    #[test]
    fn a_preflight_is_answered_by_what_is_listed() {
        let config = CorsConfig {
            credentials: true,
            headers: vec!["authorization".into(), "x-a".into()],
            expose: vec!["x-b".into()],
            ..config(&["https://app.example"])
        };
        let policy = CorsPolicy::new(&config).unwrap();
        let mut request = asking("https://app.example");
        request.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("DELETE"));
        request.insert("access-control-request-headers", HeaderValue::from_static("x-evil"));
        assert!(is_preflight(&Method::OPTIONS, &request) && !is_preflight(&Method::GET, &request));
        let mut answer = HeaderMap::new();
        policy.preflight(&request, &mut answer);
        assert_eq!(answer["access-control-allow-methods"], "GET, HEAD, POST");
        assert_eq!(answer["access-control-allow-headers"], "authorization, x-a");
        assert_eq!(answer["access-control-allow-credentials"], "true");
        assert_eq!(answer["access-control-max-age"], "600");
        assert_eq!(answer.get_all("vary").iter().count(), 3);
        assert!(!answer.contains_key("access-control-expose-headers"));
        let mut refused = HeaderMap::new();
        policy.preflight(&asking("https://evil.example"), &mut refused);
        assert!(refused.keys().all(|name| name == "vary"), "{refused:?}");
    }

    #[test]
    fn every_origin_needs_no_vary_and_gets_no_credentials() {
        let mut response = HeaderMap::new();
        let policy = policy(&["*"]);
        policy.allow(policy.allowed(&asking("https://any.example")).as_ref(), &mut response);
        assert_eq!(
            (response.len(), &response["access-control-allow-origin"]),
            (1, &HeaderValue::from_static("*"))
        );
    }

    proptest! {
        #[test]
        fn nothing_is_reflected_that_is_not_listed(origin in "[ -~]{0,40}", other in "[a-z-]{1,20}") {
            let policy = policy(&["https://app.example"]);
            let mut request = asking(&origin);
            request.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_str(&other).unwrap());
            request.insert("access-control-request-headers", HeaderValue::from_str(&other).unwrap());
            let mut answer = HeaderMap::new();
            policy.preflight(&request, &mut answer);
            let is_listed = origin == "https://app.example";
            prop_assert_eq!(answer.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), is_listed);
            let known = ["https://app.example", "GET, HEAD, POST", "content-type", "600", "origin",
                "access-control-request-method", "access-control-request-headers"];
            prop_assert!(answer.values().all(|value| known.contains(&value.to_str().unwrap())));
        }
    }
}
