//! A span per request served (OpenTelemetry's semantic conventions for HTTP servers), in the trace that the request
//! brings. Where traces go nowhere, what the request brings is only passed on to the requests made for it.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{HOST, USER_AGENT};
use hub_client::trace::extract;
use opentelemetry::trace::{FutureExt, TraceContextExt};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::health::{LIVEZ_PATH, READYZ_PATH};
use crate::metrics::{METRICS_PATH, known_method};
use crate::telemetry::{self, Source};

/// Asked for by machines every few seconds; nobody looks for them in a trace.
const PROBES: [&str; 3] = [LIVEZ_PATH, METRICS_PATH, READYZ_PATH];

/// Middleware: serves each request in a span of `source`.
pub(crate) async fn serve(State(source): State<Source>, request: Request, next: Next) -> Response {
    let parent = extract(request.headers());
    if !telemetry::traces() {
        return if parent.has_active_span() {
            next.run(request).with_context(parent).await
        } else {
            next.run(request).await
        };
    }
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    if route.as_deref().is_some_and(|route| PROBES.contains(&route)) {
        return next.run(request).await;
    }
    let span = {
        let _within = source.within(&parent).attach();
        server_span(&request, route.as_deref().unwrap_or("none"))
    };
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("error.type", status.as_str());
        span.record("otel.status_code", "error");
    }
    response
}

fn server_span(request: &Request, route: &str) -> Span {
    let method = known_method(request.method().as_str());
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let (host, port) = match text(HOST) {
        Some(host) => {
            host.rsplit_once(':').map_or((Some(host), None), |(host, port)| (Some(host), Some(port)))
        }
        None => (None, None),
    };
    tracing::info_span!(
        "serve",
        otel.name = %format_args!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.request.method_original = (method == "_OTHER").then(|| request.method().as_str()),
        http.route = route,
        http.response.status_code = Empty,
        url.scheme = "http",
        url.path = request.uri().path(),
        server.address = host,
        server.port = port.and_then(|port| port.parse::<u16>().ok()),
        user_agent.original = text(USER_AGENT),
        error.type = Empty,
    )
}
