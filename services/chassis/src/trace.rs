//! A span per request served (OpenTelemetry's semantic conventions for HTTP servers), in the trace that the request
//! brings. Where traces go nowhere, what the request brings is only passed on to the requests made for it.

use axum::extract::Request;
use http::header::{HOST, HeaderMap, USER_AGENT};
use http::uri::Authority;
use http::{Method, Uri};
use hubspoke_client::trace::{OTHER_METHOD, extract, host_and_port, known_method};
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt, TraceContextExt};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::health::{LIVEZ_PATH, READYZ_PATH};
use crate::metrics::METRICS_PATH;
use crate::telemetry::{self, Source};

/// Asked for by machines every few seconds; nobody looks for them in a trace.
const PROBES: [&str; 3] = [LIVEZ_PATH, METRICS_PATH, READYZ_PATH];

/// What a request is served in.
pub(crate) enum Traced {
    /// A span of ours.
    Span(Span),
    /// The trace that it brings, to be passed on.
    Carried(Context),
    /// Nothing.
    No,
}

impl Traced {
    /// For a request to the route of this template, served by `source`.
    pub(crate) fn begin(source: &Source, request: &Request, route: &str) -> Self {
        if !telemetry::traces() {
            let context = extract(request.headers());
            return if context.has_active_span() { Self::Carried(context) } else { Self::No };
        }
        if PROBES.contains(&route) {
            return Self::No;
        }
        Self::Span(server_span(source, request.method(), request.uri(), route, request.headers()))
    }

    /// Runs what serves the request in it.
    pub(crate) async fn around<T>(&self, serve: impl Future<Output = T>) -> T {
        match self {
            Self::Span(span) => serve.instrument(span.clone()).await,
            Self::Carried(context) => serve.with_context(context.clone()).await,
            Self::No => serve.await,
        }
    }

    /// What the request was answered with.
    pub(crate) fn served(&self, status: u16) {
        if let Self::Span(span) = self {
            served(span, status);
        }
    }
}

/// The span around a request served, in the trace that the request brings. `route` is a template: spans are named
/// by it, and there must not be as many names as callers can think of paths.
pub fn server_span(source: &Source, method: &Method, uri: &Uri, route: &str, headers: &HeaderMap) -> Span {
    if !telemetry::traces() {
        return Span::none();
    }
    let known = known_method(method.as_str());
    let name = known.unwrap_or("HTTP");
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // HTTP/2 says it in the request's target (`:authority`).
    let authority = uri.authority().map(Authority::as_str).or_else(|| text(HOST));
    let (host, port) = authority.map(host_and_port).unzip();
    let _within = source.within(&extract(headers)).attach();
    tracing::info_span!(
        "serve",
        otel.name = %format_args!("{name} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = known.unwrap_or(OTHER_METHOD),
        http.request.method_original = known.is_none().then(|| method.as_str()),
        http.route = route,
        http.response.status_code = Empty,
        url.scheme = "http",
        url.path = uri.path(),
        server.address = host,
        server.port = port.flatten(),
        user_agent.original = text(USER_AGENT),
        error.type = Empty,
    )
}

/// Writes to the span of a request what it was answered with. A caller's mistake is no error of ours.
pub fn served(span: &Span, status: u16) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("error.type", status.to_string());
        span.record("otel.status_code", "error");
    }
}
