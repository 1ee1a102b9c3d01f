//! What `/metrics` shows. Each service has a meter provider of its own, so that several in one process (`hub up`,
//! the tests) stay apart. Names and units follow OpenTelemetry's semantic conventions. Where telemetry is exported,
//! the same numbers go out by OTLP.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use hubspoke_client::LoadCounters;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundHistogram, Histogram, Meter, MeterProvider};
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};
use prometheus::{Registry, TextEncoder};

use crate::telemetry::{self, SCOPE, Source};

/// Where the metrics are shown.
pub const METRICS_PATH: &str = "/metrics";
/// Bucket bounds of `http.server.request.duration`, in seconds (OpenTelemetry semantic conventions, HTTP metrics).
const DURATION_BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Series that an instrument may be allowed.
const MOST_SERIES: usize = 200_000;

/// One service's metrics. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    provider: SdkMeterProvider,
    requests: Histogram<f64>,
    source: Source,
    /// How many series an instrument may have, by its name, where that is more than usual.
    series: Arc<Mutex<HashMap<&'static str, usize>>>,
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
        let source = Source::new(service, instance);
        let series: Arc<Mutex<HashMap<&'static str, usize>>> = Arc::default();
        let limits = series.clone();
        let limit = move |instrument: &Instrument| {
            let limits = limits.lock().unwrap_or_else(PoisonError::into_inner);
            Stream::builder().with_cardinality_limit(*limits.get(instrument.name())?).build().ok()
        };
        let mut provider = SdkMeterProvider::builder()
            .with_reader(exporter)
            .with_resource(telemetry::resource(&source))
            .with_view(limit);
        if let Some(reader) = telemetry::metrics_reader() {
            provider = provider.with_reader(reader);
        }
        let provider = provider.build();
        telemetry::metered(&provider);
        let requests = provider
            .meter(SCOPE)
            .f64_histogram("http.server.request.duration")
            .with_unit("s")
            .with_description("Duration of HTTP server requests")
            .with_boundaries(DURATION_BOUNDS.to_vec())
            .build();
        Ok(Self { registry, provider, requests, source, series })
    }

    /// Lets an instrument that is made after this have so many series. Others have at most 2,000, OpenTelemetry's
    /// default; what comes on top is summed up under `otel.metric.overflow`. OpenTelemetry sets aside room for all of
    /// them at once, so this is for instruments with a series per service or instance, and goes no further than
    /// 200,000.
    pub fn allow_series(&self, instrument: &'static str, most: usize) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.insert(instrument, most.clamp(1, MOST_SERIES));
    }

    /// Which service these are the metrics of; for spans that begin in it.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Shows how many requests are in flight.
    pub(crate) fn show_load(&self, load: &LoadCounters) {
        let load = load.clone();
        self.meter()
            .i64_observable_up_down_counter("http.server.active_requests")
            .with_unit("{request}")
            .with_description("Requests in flight")
            .with_callback(move |active| {
                active.observe(i64::try_from(load.heartbeat().in_flight).unwrap_or(i64::MAX), &[]);
            })
            .build();
    }

    /// For instruments of the service's own.
    pub fn meter(&self) -> Meter {
        self.provider.meter(SCOPE)
    }

    /// Where the durations of one route's requests are recorded.
    pub(crate) fn route_durations(&self) -> RouteDurations {
        RouteDurations { requests: self.requests.clone(), bound: RwLock::default() }
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

/// The durations of one route's requests. Each method and status is looked up in the histogram once: its labels are
/// not hashed for every request.
#[derive(Debug)]
pub(crate) struct RouteDurations {
    requests: Histogram<f64>,
    /// By method and status: few, and the known methods only.
    bound: RwLock<Vec<(&'static str, u16, BoundHistogram<f64>)>>,
}

impl RouteDurations {
    /// Records one request served. `route` is the route's template (`/services/{name}`), never a path as sent: series
    /// must not grow with what callers ask for.
    pub(crate) fn record(&self, method: &'static str, route: &str, status: u16, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bound = self.bound.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., bound)) = bound.iter().find(|known| (known.0, known.1) == (method, status)) {
            return bound.record(seconds);
        }
        drop(bound);
        let labels = [
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", route.to_owned()),
            KeyValue::new("http.response.status_code", i64::from(status)),
        ];
        let new = self.requests.bind(&labels);
        new.record(seconds);
        self.bound.write().unwrap_or_else(PoisonError::into_inner).push((method, status, new));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_series_than_usual_are_shown_where_they_are_allowed() {
        let metrics = Metrics::new("registry", "registry-1").unwrap();
        metrics.allow_series("wide", 3_000);
        for name in ["wide", "usual"] {
            let counter = metrics.meter().u64_counter(name).build();
            (0..2_500).for_each(|n| counter.add(1, &[KeyValue::new("n", n)]));
        }
        let text = metrics.render();
        let series = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!((series("wide_total{"), series("usual_total{")), (2_500, 2_001));
        assert_eq!(text.matches("otel_metric_overflow=").count(), 1);
    }

    #[test]
    fn requests_are_counted_by_method_route_and_status() {
        let metrics = Metrics::new("log", "log-1").unwrap();
        let durations = metrics.route_durations();
        for _ in 0..2 {
            durations.record("POST", "/log", 200, Duration::from_millis(3));
        }
        durations.record(hubspoke_client::trace::OTHER_METHOD, "/log", 405, Duration::from_millis(3));
        let text = metrics.render();
        for part in [
            r#"http_server_request_duration_seconds_count{http_request_method="POST",http_response_status_code="200",http_route="/log",otel_scope_name="hubspoke"} 2"#,
            r#"http_request_method="_OTHER""#,
            r#"service_name="log""#,
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
