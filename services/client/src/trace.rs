//! Trace context across HTTP. OpenTelemetry's global propagator reads it from headers and writes it to them; without a
//! propagator this does nothing, and without an exporter a context is passed on unchanged. Spans are ordinary `tracing`
//! spans, and exporting them is up to the process. The types of OpenTelemetry and `http` in these signatures are on
//! purpose.

use std::fmt;

use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::{Context, global};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tracing::Span;
use tracing::field::Empty;

/// The headers that the propagators read: W3C trace context and baggage. Most requests have neither, and looking is
/// cheaper than asking the propagators.
const CARRIERS: [&str; 2] = ["traceparent", "baggage"];

/// Writes the current context to the headers of a request before it is sent.
pub fn inject(headers: &mut HeaderMap) {
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&Context::current(), &mut HeaderInjector(headers));
    });
}

/// The context in the headers of a request; an empty one if there is none or it is malformed.
pub fn extract(headers: &HeaderMap) -> Context {
    if !CARRIERS.iter().any(|name| headers.contains_key(*name)) {
        return Context::new();
    }
    global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers))
    })
}

/// The value of `http.request.method` for an unknown method. In the names of spans it is `HTTP` (both by OpenTelemetry's
/// semantic conventions).
pub const OTHER_METHOD: &str = "_OTHER";

/// The method as it may appear in names of spans and in labels; `None` if it is unknown. Callers choose the method, and
/// they must not be able to create any number of names and series.
///
/// ```
/// use hubspoke_client::trace::known_method;
///
/// assert_eq!((known_method("GET"), known_method("BREW")), (Some("GET"), None));
/// ```
pub fn known_method(method: &str) -> Option<&'static str> {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| *known == method)
}

/// Splits `host`, `host:port`, `[v6]` or `[v6]:port` into the attributes `server.address` (without brackets) and
/// `server.port`.
pub fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, after)) => (host, after.strip_prefix(':')),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    (host, port.and_then(|port| port.parse().ok()))
}

/// One attempt of a request, for its span.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// Name of the span; by default the method and the service.
    pub operation: Option<&'a str>,
    /// The method.
    pub method: &'a str,
    /// The path, without the query: that may contain secrets.
    pub path: &'a str,
    /// The name of the service.
    pub service: &'a str,
    /// The `Id` of the instance.
    pub instance: &'a str,
    /// The `host:port` of the instance.
    pub addr: &'a str,
    /// How many attempts of the same request came before.
    pub resend: usize,
}

impl Attempt<'_> {
    /// The span of the attempt, by OpenTelemetry's semantic conventions for HTTP clients. If it is filtered out, it
    /// costs nothing.
    pub fn span(&self) -> Span {
        let (host, port) = host_and_port(self.addr);
        let method = known_method(self.method);
        let name = fmt::from_fn(|f| match self.operation {
            Some(operation) => f.write_str(operation),
            None => write!(f, "{} {}", method.unwrap_or("HTTP"), self.service),
        });
        tracing::info_span!(
            "attempt",
            otel.name = %name,
            otel.kind = "client",
            otel.status_code = Empty,
            http.request.method = method.unwrap_or(OTHER_METHOD),
            http.request.method_original = method.is_none().then_some(self.method),
            http.request.resend_count = (self.resend > 0).then_some(self.resend as u64),
            http.response.status_code = Empty,
            url.full = %format_args!("http://{}{}", self.addr, self.path),
            server.address = host,
            server.port = port,
            error.type = Empty,
            hub.service = self.service,
            hub.instance = self.instance,
        )
    }
}

/// Records the outcome of an attempt on its span: the status, or in one word why there is none.
pub fn record_outcome(span: &Span, outcome: Result<u16, &str>) {
    if span.is_disabled() {
        return;
    }
    match outcome {
        Ok(status) => {
            span.record("http.response.status_code", status);
            if status >= 400 {
                span.record("error.type", status.to_string());
                span.record("otel.status_code", "error");
            }
        }
        Err(error) => {
            span.record("error.type", error);
            span.record("otel.status_code", "error");
        }
    }
}

struct HeaderInjector<'a>(&'a mut HeaderMap);

impl Injector for HeaderInjector<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (key.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

struct HeaderExtractor<'a>(&'a HeaderMap);

impl Extractor for HeaderExtractor<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        let values: Vec<_> = self.0.get_all(key).iter().filter_map(|value| value.to_str().ok()).collect();
        (!values.is_empty()).then_some(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_split_into_address_and_port() {
        for (authority, address, port) in [
            ("log", "log", None),
            ("log:20002", "log", Some(20_002)),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]", "::1", None),
            ("[::1]:20002", "::1", Some(20_002)),
            ("log:", "log", None),
            ("log:http", "log", None),
        ] {
            assert_eq!(host_and_port(authority), (address, port), "{authority}");
        }
    }
}
