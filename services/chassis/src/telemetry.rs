//! What a process reports of itself: lines on stderr always; traces, metrics and logs by OTLP where an endpoint is
//! set, by `telemetry.otlp_endpoint` or the standard `OTEL_…` variables.
//!
//! Invariants: without an endpoint no exporter exists and spans cost nothing, since nobody listens. With one,
//! nothing that serves a request waits for it: what finds no room in a bounded queue is lost and counted. Stopping
//! is bounded, whatever the collector does. A trace context that comes with a request is passed on in either case.
//!
//! Each service has a meter provider of its own ([`crate::metrics`]). The process has one tracer and one logger;
//! a span knows its service by the [`Source`] in its context. Left out: OTLP over gRPC, JSON or TLS.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::global;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::propagation::TextMapCompositePropagator;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{KeyValue, propagation::TextMapPropagator};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{BatchConfigBuilder as RecordBatches, BatchLogProcessor, SdkLoggerProvider};
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use opentelemetry_sdk::trace::{BatchConfigBuilder as SpanBatches, BatchSpanProcessor, SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use self::export::{Bounded, Otlp, Parts};
use self::report::Report;
use self::sampler::Sampling;
use self::source::Sources;
pub(crate) use self::source::instance_id;
use self::stderr::Queue;

pub use self::settings::Settings;
pub use self::source::Source;

mod client;
mod export;
mod lines;
mod report;
mod sampler;
mod settings;
mod source;
mod stderr;

/// Instrumentation scope of everything of ours.
pub(crate) const SCOPE: &str = "hubspoke";
/// How long a stopping process waits for telemetry to be taken.
const FLUSH: Duration = Duration::from_secs(2);
/// The same where the collector was not taking any.
const FLUSH_FAILING: Duration = Duration::from_millis(250);
/// Crates that exporting itself goes through: what they say is not exported, or exporting would feed itself.
const OWN_TRANSPORT: [&str; 7] =
    ["h2", "hyper", "hyper_util", "opentelemetry", "opentelemetry_otlp", "opentelemetry_sdk", "reqwest"];

/// Why telemetry can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The filter is none.
    #[error("telemetry.log")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// No thread to write lines.
    #[error("can't start a thread")]
    Thread(#[from] std::io::Error),
    /// No HTTP client to export with.
    #[error("can't make an HTTP client for telemetry")]
    Client(#[from] Box<dyn std::error::Error + Send + Sync>),
}

type Shutdown = Box<dyn FnOnce() -> OTelSdkResult + Send>;

/// What is exported, process-wide; set once.
static EXPORTING: OnceLock<Exporting> = OnceLock::new();
static PROPAGATING: Once = Once::new();
/// Lines on their way to stderr.
static LINES: OnceLock<Queue> = OnceLock::new();

struct Exporting {
    settings: Arc<Settings>,
    sources: Arc<Sources>,
    metrics: Option<(Otlp, Arc<Report>)>,
    reports: Vec<Arc<Report>>,
    tracer: Option<SdkTracerProvider>,
    logger: Option<SdkLoggerProvider>,
    meters: Mutex<Vec<SdkMeterProvider>>,
}

/// Running telemetry. Dropped, in a panic say, only the lines on stderr are flushed.
#[must_use = "shut it down at the end, or what waits is lost"]
#[derive(Debug)]
pub struct Running(());

/// Starts telemetry for this process; a second start changes nothing.
///
/// # Errors
/// [`StartError`].
pub fn start(settings: Settings) -> Result<Running, StartError> {
    let filter = || EnvFilter::builder().parse(&settings.log);
    // Spans are for tracing; lines need none, and where nobody wants them they cost nothing.
    let queue = match LINES.get() {
        Some(queue) => queue.clone(),
        None => {
            let queue = Queue::stderr()?;
            LINES.get_or_init(|| queue).clone()
        }
    };
    let lines = lines::layer(queue).with_filter(filter()?.and(filter_fn(|callsite| callsite.is_event())));
    propagate(settings.trace_context, settings.baggage);
    if EXPORTING.get().is_some() {
        return Ok(Running(()));
    }
    if !settings.exports() {
        // Fails only where a subscriber is set already: a test's, which is then the one to use.
        let _ = tracing_subscriber::registry().with(lines).try_init();
        return Ok(Running(()));
    }
    let log_filter =
        filter()?.and(transport_left_out(LevelFilter::TRACE)).and(filter_fn(|callsite| callsite.is_event()));
    let exporting = Exporting::new(settings)?;
    let spans = exporting.tracer.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(SCOPE))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            // Events are exported as logs, with their trace's id: as span events too they would travel twice.
            .with_filter(transport_left_out(LevelFilter::INFO).and(filter_fn(|callsite| callsite.is_span())))
    });
    let logs = exporting
        .logger
        .as_ref()
        .map(|provider| OpenTelemetryTracingBridge::new(provider).with_filter(log_filter));
    let _ = EXPORTING.set(exporting);
    let _ = tracing_subscriber::registry().with(lines).with(spans).with(logs).try_init();
    Ok(Running(()))
}

fn transport_left_out(level: LevelFilter) -> Targets {
    Targets::new().with_default(level).with_targets(OWN_TRANSPORT.map(|target| (target, LevelFilter::OFF)))
}

impl Exporting {
    fn new(settings: Settings) -> Result<Self, StartError> {
        let settings = Arc::new(settings);
        let sources = Arc::new(Sources::default());
        let process = Source::new(settings.process.name, &instance_id(settings.process.name));
        let mut reports = Vec::new();
        let mut report = |signal, url: &str, size| {
            let report = Arc::new(Report::new(signal, url, size));
            reports.push(report.clone());
            report
        };
        let parts = |otlp, report| Parts {
            otlp,
            settings: settings.clone(),
            sources: sources.clone(),
            process: process.clone(),
            report,
        };
        let tracer = match &settings.traces {
            None => None,
            Some(endpoint) => {
                let report = report("traces", &endpoint.url, settings.spans.size);
                let queue = BatchSpanProcessor::new(
                    parts(Otlp::new(endpoint)?, report.clone()).spans(),
                    SpanBatches::default()
                        .with_max_queue_size(settings.spans.size)
                        .with_max_export_batch_size(settings.spans.batch)
                        .with_scheduled_delay(settings.spans.delay)
                        .build(),
                );
                let provider = SdkTracerProvider::builder()
                    .with_span_processor(Bounded { queue, report })
                    .with_sampler(Sampling::new(settings.sampler.clone(), settings.heartbeats));
                Some(provider.build())
            }
        };
        let logger = match &settings.logs {
            None => None,
            Some(endpoint) => {
                let report = report("logs", &endpoint.url, settings.records.size);
                let records = parts(Otlp::new(endpoint)?, report.clone()).records();
                let batches = RecordBatches::default()
                    .with_max_queue_size(settings.records.size)
                    .with_max_export_batch_size(settings.records.batch)
                    .with_scheduled_delay(settings.records.delay)
                    .build();
                let queue = BatchLogProcessor::builder(records).with_batch_config(batches).build();
                Some(SdkLoggerProvider::builder().with_log_processor(Bounded { queue, report }).build())
            }
        };
        let metrics = match &settings.metrics {
            None => None,
            Some(endpoint) => Some((Otlp::new(endpoint)?, report("metrics", &endpoint.url, 0))),
        };
        Ok(Self { settings, sources, metrics, reports, tracer, logger, meters: Mutex::default() })
    }

    fn meters(&self) -> std::sync::MutexGuard<'_, Vec<SdkMeterProvider>> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that has to be flushed, each on its own, with the signal it is of.
    fn shutdowns(&self) -> Vec<(&'static str, Shutdown)> {
        let mut all: Vec<(_, Shutdown)> = Vec::new();
        if let Some(tracer) = self.tracer.clone() {
            all.push(("traces", Box::new(move || tracer.shutdown_with_timeout(FLUSH))));
        }
        if let Some(logger) = self.logger.clone() {
            all.push(("logs", Box::new(move || logger.shutdown_with_timeout(FLUSH))));
        }
        for meter in self.meters().drain(..) {
            all.push(("metrics", Box::new(move || meter.shutdown_with_timeout(FLUSH))));
        }
        all
    }
}

impl Running {
    /// Sends what waits, for at most two seconds, and says what got lost. Blocks: not for async threads.
    pub fn shutdown(self) {
        let Some(exporting) = EXPORTING.get() else { return };
        let start = Instant::now();
        let mut flushes = Vec::new();
        for (signal, shutdown) in exporting.shutdowns() {
            // A signal that is not taken says nothing of the others: some collectors take traces only.
            let failing =
                exporting.reports.iter().any(|report| report.signal == signal && report.is_failing());
            let (done, waiting) = mpsc::channel::<()>();
            // What hangs ends with the process.
            let _ = std::thread::Builder::new().name("flush".to_owned()).spawn(move || {
                let _ = shutdown();
                drop(done);
            });
            flushes.push((start + if failing { FLUSH_FAILING } else { FLUSH }, waiting));
        }
        for (deadline, done) in flushes {
            let _ = done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        for report in &exporting.reports {
            report.end();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(lines) = LINES.get() {
            lines.flush();
        }
    }
}

/// Sets the process's propagator, unless it was set before.
fn propagate(trace_context: bool, baggage: bool) {
    PROPAGATING.call_once(|| {
        let mut all: Vec<Box<dyn TextMapPropagator + Send + Sync>> = Vec::new();
        if trace_context {
            all.push(Box::new(TraceContextPropagator::new()));
        }
        if baggage {
            all.push(Box::new(BaggagePropagator::new()));
        }
        global::set_text_map_propagator(TextMapCompositePropagator::new(all));
    });
}

/// A service begins in this process: what it sends is to name it.
pub(crate) fn bound(source: &Source) {
    propagate(true, true); // where the process was not started by `boot`: a test, an embedding program
    if let Some(exporting) = EXPORTING.get() {
        exporting.sources.add(source.clone());
    }
}

/// Whether spans go anywhere.
pub(crate) fn traces() -> bool {
    EXPORTING.get().is_some_and(|exporting| exporting.tracer.is_some())
}

/// The resource of a service's metrics.
pub(crate) fn resource(source: &Source) -> Resource {
    match EXPORTING.get() {
        Some(exporting) => exporting.settings.resource(&source.service, &source.instance),
        None => Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", source.service.to_string()),
                KeyValue::new("service.instance.id", source.instance.to_string()),
            ])
            .build(),
    }
}

/// Where a service's metrics go besides `/metrics`.
pub(crate) fn metrics_reader() -> Option<impl MetricReader> {
    let exporting = EXPORTING.get()?;
    let (otlp, report) = exporting.metrics.as_ref()?;
    let exporter = otlp.metrics(exporting.settings.temporality, report.clone()).ok()?;
    Some(PeriodicReader::builder(exporter).with_interval(exporting.settings.metrics_interval).build())
}

/// A service's metrics exist: they are flushed at the end, and the first service's show what telemetry got lost.
pub(crate) fn metered(provider: &SdkMeterProvider) {
    let Some(exporting) = EXPORTING.get() else { return };
    let mut meters = exporting.meters();
    if meters.is_empty() {
        let reports = exporting.reports.clone();
        provider
            .meter(SCOPE)
            .u64_observable_counter("hub.telemetry.lost")
            .with_description("Spans and log records that no collector took")
            .with_callback(move |lost| {
                for report in reports.iter().filter(|report| report.signal != "metrics") {
                    lost.observe(report.lost(), &[KeyValue::new("signal", report.signal)]);
                }
            })
            .build();
    }
    meters.push(provider.clone());
}
