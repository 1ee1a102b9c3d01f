//! A server span per request (OpenTelemetry's semantic conventions for HTTP), in the trace that the request belongs to.
//! If traces are not exported, the request's trace context is only passed on.

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
use crate::telemetry::{ServiceInstance, exports_traces};

/// Routes that are polled every few seconds and not worth a trace.
const PROBES: [&str; 3] = [LIVEZ_PATH, METRICS_PATH, READYZ_PATH];

/// How a request is traced.
pub(crate) enum RequestTrace {
    /// With a span.
    Span(Span),
    /// Only by passing its context on.
    Context(Context),
    /// Not at all.
    None,
}

impl RequestTrace {
    /// For a request to the route with this template, served by `instance`.
    pub(crate) fn start(instance: &ServiceInstance, request: &Request, route: &str) -> Self {
        if !exports_traces() {
            let context = extract(request.headers());
            return if context.has_active_span() { Self::Context(context) } else { Self::None };
        }
        if PROBES.contains(&route) {
            return Self::None;
        }
        Self::Span(server_span(instance, request.method(), request.uri(), route, request.headers()))
    }

    /// Runs the handler within the trace.
    pub(crate) async fn run<T>(&self, serve: impl Future<Output = T>) -> T {
        match self {
            Self::Span(span) => serve.instrument(span.clone()).await,
            Self::Context(context) => serve.with_context(context.clone()).await,
            Self::None => serve.await,
        }
    }

    /// Records the status of the response.
    pub(crate) fn record_status(&self, status: u16) {
        if let Self::Span(span) = self {
            record_status(span, status);
        }
    }
}

/// The span of a request, in the trace that the request belongs to. `route` is a template (`/services/{name}`), never a
/// path: it is part of the span's name, and clients must not be able to create names.
pub fn server_span(
    instance: &ServiceInstance,
    method: &Method,
    uri: &Uri,
    route: &str,
    headers: &HeaderMap,
) -> Span {
    if !exports_traces() {
        return Span::none();
    }
    let known = known_method(method.as_str());
    let name = known.unwrap_or("HTTP");
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // In HTTP/2 it is part of the target (`:authority`).
    let authority = uri.authority().map(Authority::as_str).or_else(|| text(HOST));
    let (host, port) = authority.map(host_and_port).unzip();
    let _guard = instance.in_context(&extract(headers)).attach();
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

/// Records the status of the response on a request's span. Client errors (4xx) are not errors of the span.
pub fn record_status(span: &Span, status: u16) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("error.type", status.to_string());
        span.record("otel.status_code", "error");
    }
}
