//! `/metrics`. Each service has its own meter provider, so that several in one process (`hub up`, tests) stay apart.
//! Names and units follow OpenTelemetry's semantic conventions. If telemetry is exported, OTLP carries the same numbers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use hubspoke_client::{LoadCounters, LogClient};
pub use hubspoke_protocol::METRICS_PATH;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundHistogram, Histogram, Meter, MeterProvider};
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};
use parking_lot::{Mutex, RwLock};
use prometheus::{Registry, TextEncoder};

use self::process::ProcessCollector;
use crate::telemetry::{self, SCOPE, ServiceInstance};

mod process;

/// Bucket boundaries of `http.server.request.duration`, in seconds (OpenTelemetry semantic conventions, HTTP metrics).
const DURATION_BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Most series that an instrument may be allowed.
const MAX_SERIES: usize = 200_000;

/// The metrics of one service. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    provider: SdkMeterProvider,
    requests: Histogram<f64>,
    instance: ServiceInstance,
    /// Instruments that may have more series than the default.
    max_series: Arc<Mutex<HashMap<&'static str, usize>>>,
}

/// The metrics can't be set up.
#[derive(Debug, thiserror::Error)]
#[error("can't set up metrics")]
pub struct MetricsError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Metrics {
    /// Metrics of one instance of a service.
    ///
    /// # Errors
    /// If the exporter can't be set up.
    pub fn new(service: &str, instance: &str) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .build()
            .map_err(|error| MetricsError(error.into()))?;
        let process = ProcessCollector::new().and_then(|process| registry.register(Box::new(process)));
        process.map_err(|error| MetricsError(error.into()))?;
        let instance = ServiceInstance::new(service, instance);
        let max_series: Arc<Mutex<HashMap<&'static str, usize>>> = Arc::default();
        let limits = max_series.clone();
        let limit = move |instrument: &Instrument| {
            let limits = limits.lock();
            Stream::builder().with_cardinality_limit(*limits.get(instrument.name())?).build().ok()
        };
        let mut provider = SdkMeterProvider::builder()
            .with_reader(exporter)
            .with_resource(telemetry::resource(&instance))
            .with_view(limit);
        if let Some(reader) = telemetry::metrics_reader() {
            provider = provider.with_reader(reader);
        }
        let provider = provider.build();
        telemetry::add_meter_provider(&provider);
        let requests = provider
            .meter(SCOPE)
            .f64_histogram("http.server.request.duration")
            .with_unit("s")
            .with_description("Duration of HTTP server requests")
            .with_boundaries(DURATION_BOUNDS.to_vec())
            .build();
        Ok(Self { registry, provider, requests, instance, max_series })
    }

    /// Allows an instrument that is made after this call up to `most` series, at most 200,000. The default is 2,000;
    /// further ones are summed under `otel.metric.overflow`. OpenTelemetry allocates all of them at once, so this is
    /// for instruments with a series per service or instance.
    pub fn allow_series(&self, instrument: &'static str, most: usize) {
        self.max_series.lock().insert(instrument, most.clamp(1, MAX_SERIES));
    }

    /// The instance that these are the metrics of, for its spans.
    pub fn instance(&self) -> &ServiceInstance {
        &self.instance
    }

    /// Adds the number of requests in flight.
    pub(crate) fn show_load(&self, load: &LoadCounters) {
        let load = load.clone();
        self.meter()
            .i64_observable_up_down_counter("http.server.active_requests")
            .with_unit("{request}")
            .with_description("Requests in flight")
            .with_callback(move |active| {
                active.observe(
                    i64::try_from(load.heartbeat().in_flight.unwrap_or_default()).unwrap_or(i64::MAX),
                    &[],
                );
            })
            .build();
    }

    /// Adds the number of entries with fewer copies than there should be.
    pub(crate) fn show_short_entries(&self, log: &LogClient) {
        let log = log.clone();
        self.meter()
            .u64_observable_counter("hub.log_client.fewer_copies")
            .with_unit("{entry}")
            .with_description("Entries that were acknowledged with fewer copies than log_client.copies")
            .with_callback(move |short| short.observe(log.short(), &[]))
            .build();
    }

    /// The meter for the service's own instruments, of OpenTelemetry's API.
    pub fn meter(&self) -> Meter {
        self.provider.meter(SCOPE)
    }

    /// The durations of one route's requests.
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

/// The durations of one route's requests. Binds the histogram once per method and status, so that a request does not
/// hash labels.
#[derive(Debug)]
pub(crate) struct RouteDurations {
    requests: Histogram<f64>,
    /// By method and status. The list is short: methods that are not known share one name.
    bound: RwLock<Vec<(&'static str, u16, BoundHistogram<f64>)>>,
}

impl RouteDurations {
    /// Records one request. `route` is the template (`/services/{name}`), never a path: clients must not be able to
    /// create series.
    pub(crate) fn record(&self, method: &'static str, route: &str, status: u16, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bound = self.bound.read();
        if let Some((.., bound)) = bound.iter().find(|known| (known.0, known.1) == (method, status)) {
            return bound.record(seconds);
        }
        drop(bound);
        let labels = [
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", route.to_owned()),
            KeyValue::new("http.response.status_code", i64::from(status)),
        ];
        let bound = self.requests.bind(&labels);
        bound.record(seconds);
        self.bound.write().push((method, status, bound));
    }
}
