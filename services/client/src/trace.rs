//! Trace context across HTTP: the process's propagator (OpenTelemetry's global one) reads it from headers and
//! writes it to them. Without a propagator nothing is read or written; without an exporter a context passes through
//! as it came. Here is only the carrying: spans are ordinary `tracing` spans, and whether they go anywhere is the
//! process's affair.

use std::fmt;

use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::{Context, global};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tracing::Span;
use tracing::field::Empty;

/// Where a context can come in: the headers of the propagators that there are (W3C trace context and baggage). Most
/// requests bring neither, and asking the propagators costs more than looking.
const CARRIERS: [&str; 2] = ["traceparent", "baggage"];

/// Writes the current context to the headers of a request that is about to be sent.
pub fn inject(headers: &mut HeaderMap) {
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&Context::current(), &mut Write(headers));
    });
}

/// The context that came with a request; an empty one where none did, or where it is broken.
pub fn extract(headers: &HeaderMap) -> Context {
    if !CARRIERS.iter().any(|name| headers.contains_key(*name)) {
        return Context::new();
    }
    global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &Read(headers))
    })
}

/// The value of `http.request.method` where it is none of the known ones. In a span's name stands `HTTP` instead
/// (OpenTelemetry's semantic conventions).
pub const OTHER_METHOD: &str = "_OTHER";

/// A method as it may stand in names of spans and in labels; nothing where it is not known. Methods are the caller's
/// to choose, and there must not be as many names and series as callers can think of.
pub fn known_method(method: &str) -> Option<&'static str> {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| *known == method)
}

/// `host`, `host:port`, `[v6]` or `[v6]:port` as the attributes `server.address` (without brackets) and `server.port`.
pub fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, after)) => (host, after.strip_prefix(':')),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    (host, port.and_then(|port| port.parse().ok()))
}

/// One attempt to have a request served by an instance, for its span.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// What is attempted, for the span's name; unset: the method and the service.
    pub operation: Option<&'a str>,
    /// Of the request, as it was sent.
    pub method: &'a str,
    /// Of the request, without its query, which may hold what is nobody's business.
    pub path: &'a str,
    /// The name of the service asked.
    pub service: &'a str,
    /// The `Id` of the instance asked.
    pub instance: &'a str,
    /// The `host:port` of the instance asked.
    pub addr: &'a str,
    /// How many attempts came before this one.
    pub resend: usize,
}

impl Attempt<'_> {
    /// The span around it, by OpenTelemetry's semantic conventions for HTTP clients. Where nobody listens it is
    /// none, and costs nothing.
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

/// Writes to the span of an attempt what became of it: a status, or in a word why there is none.
pub fn attempted(span: &Span, outcome: Result<u16, &str>) {
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
        Err(why) => {
            span.record("error.type", why);
            span.record("otel.status_code", "error");
        }
    }
}

struct Write<'a>(&'a mut HeaderMap);

impl Injector for Write<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (key.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

struct Read<'a>(&'a HeaderMap);

impl Extractor for Read<'_> {
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
