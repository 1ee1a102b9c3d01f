//! What `/metrics` shows. Each service has a meter provider of its own, so that several in one process (`hub up`,
//! the tests) stay apart. Names and units follow OpenTelemetry's semantic conventions.

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, Meter, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

/// Where the metrics are shown.
pub const METRICS_PATH: &str = "/metrics";
/// Bucket bounds of `http.server.request.duration`, in seconds (OpenTelemetry semantic conventions, HTTP metrics).
const DURATION_BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// One service's metrics. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    provider: SdkMeterProvider,
    requests: Histogram<f64>,
}

/// The metrics can't be set up.
#[derive(Debug, thiserror::Error)]
#[error("can't set up metrics")]
pub struct MetricsError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Metrics {
    /// Metrics of one instance of a service.
    ///
    /// # Errors
    /// Where the exporter can't be set up.
    pub fn new(service: &str, instance: &str) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .build()
            .map_err(|error| MetricsError(error.into()))?;
        let resource = Resource::builder()
            .with_service_name(service.to_owned())
            .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
            .build();
        let provider = SdkMeterProvider::builder().with_reader(exporter).with_resource(resource).build();
        let requests = provider
            .meter("hubspoke")
            .f64_histogram("http.server.request.duration")
            .with_unit("s")
            .with_description("Duration of HTTP server requests")
            .with_boundaries(DURATION_BOUNDS.to_vec())
            .build();
        Ok(Self { registry, provider, requests })
    }

    /// For instruments of the service's own.
    pub fn meter(&self) -> Meter {
        self.provider.meter("hubspoke")
    }

    /// Records one request served. `route` is a template (`/services/{name}`), never a path as sent: series must
    /// not grow with what callers ask for.
    pub fn request_served(&self, method: &str, route: &str, status: u16, duration: Duration) {
        self.requests.record(
            duration.as_secs_f64(),
            &[
                KeyValue::new("http.request.method", known_method(method)),
                KeyValue::new("http.route", route.to_owned()),
                KeyValue::new("http.response.status_code", i64::from(status)),
            ],
        );
    }

    /// The metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "can't render the metrics");
            String::new()
        })
    }

    /// `GET /metrics`.
    pub fn routes(&self) -> Router {
        Router::new().route(METRICS_PATH, get(show)).with_state(self.clone())
    }
}

async fn show(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}

/// Middleware: records each request of a router.
pub async fn record(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = next.run(request).await;
    let route = route.as_deref().unwrap_or("none");
    metrics.request_served(method.as_str(), route, response.status().as_u16(), start.elapsed());
    response
}

/// Methods are the caller's to choose, so all but the known ones are one series (`_OTHER`, by the conventions).
fn known_method(method: &str) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("_OTHER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_method_route_and_status() {
        let metrics = Metrics::new("log", "log-1").unwrap();
        metrics.request_served("POST", "/log", 200, Duration::from_millis(3));
        metrics.request_served("BREW", "/log", 405, Duration::from_millis(3));
        let text = metrics.render();
        for part in [
            r#"http_server_request_duration_seconds_count{http_request_method="POST",http_response_status_code="200",http_route="/log",otel_scope_name="hubspoke"} 1"#,
            r#"http_request_method="_OTHER""#,
            r#"service_name="log""#,
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
