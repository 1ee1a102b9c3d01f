//! From the settings to running telemetry, and its end.

use std::error::Error;
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::format;
use super::pipeline::{PIPELINE, Pipeline, SCOPE};
use super::propagation::set_propagator;
use super::settings::TelemetrySettings;
use super::stderr::StderrQueue;

/// How long a stopping process waits for the last export.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// The same if the last export failed.
const FLUSH_TIMEOUT_FAILING: Duration = Duration::from_millis(250);
/// Crates that exporting uses. Their spans and events are not exported, or each export would cause another.
const EXPORT_CRATES: [&str; 8] = [
    "h2",
    "hyper",
    "hyper_util",
    "opentelemetry",
    "opentelemetry_otlp",
    "opentelemetry_sdk",
    "reqwest",
    "rustls",
];

/// Why telemetry can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The filter is invalid.
    #[error("invalid telemetry.log")]
    Filter(#[source] Box<dyn Error + Send + Sync>),
    /// The thread that writes to stderr, or that for exports, can't be started.
    #[error("can't start a thread")]
    Thread(#[from] std::io::Error),
}

static STDERR: OnceLock<StderrQueue> = OnceLock::new();

/// Running telemetry. Dropping it flushes only stderr; [`shutdown`](Self::shutdown) exports what is queued.
#[must_use = "without a shutdown, queued telemetry is lost"]
#[derive(Debug)]
pub struct Running(());

/// Starts telemetry for this process, and logs which `OTEL_…` variables are ignored. A second start changes nothing.
///
/// # Errors
/// [`StartError`].
pub fn start(mut settings: TelemetrySettings) -> Result<Running, StartError> {
    let warnings = std::mem::take(&mut settings.warnings);
    let running = subscribe(settings)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(running)
}

fn subscribe(settings: TelemetrySettings) -> Result<Running, StartError> {
    let filter =
        || EnvFilter::builder().parse(&settings.log).map_err(|error| StartError::Filter(error.into()));
    let queue = match STDERR.get() {
        Some(queue) => queue.clone(),
        None => {
            let queue = StderrQueue::stderr()?;
            STDERR.get_or_init(|| queue).clone()
        }
    };
    // Lines don't show spans. Without this filter the layer would enable them.
    let lines = format::layer(queue).with_filter(filter()?.and(filter_fn(|callsite| callsite.is_event())));
    set_propagator(settings.trace_context, settings.baggage);
    if PIPELINE.get().is_some() {
        return Ok(Running(()));
    }
    if !settings.exports() {
        // Fails only if a test has set its own subscriber, which then stays.
        let _ = tracing_subscriber::registry().with(lines).try_init();
        return Ok(Running(()));
    }
    let log_filter = filter()?
        .and(without_export_crates(LevelFilter::TRACE))
        .and(filter_fn(|callsite| callsite.is_event()));
    let pipeline = Pipeline::new(settings)?;
    let spans = pipeline.tracer.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(SCOPE))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            // Events are exported as logs with their trace's id; as span events they would be sent twice.
            .with_filter(
                without_export_crates(LevelFilter::INFO).and(filter_fn(|callsite| callsite.is_span())),
            )
    });
    let logs = pipeline
        .logger
        .as_ref()
        .map(|provider| OpenTelemetryTracingBridge::new(provider).with_filter(log_filter));
    let _ = PIPELINE.set(pipeline);
    let _ = tracing_subscriber::registry().with(lines).with(spans).with(logs).try_init();
    Ok(Running(()))
}

fn without_export_crates(level: LevelFilter) -> Targets {
    Targets::new().with_default(level).with_targets(EXPORT_CRATES.map(|target| (target, LevelFilter::OFF)))
}

impl Running {
    /// Exports what is queued, for at most two seconds, and logs what was lost. Blocks: not for async threads.
    pub fn shutdown(self) {
        let Some(pipeline) = PIPELINE.get() else { return };
        let start = Instant::now();
        let mut flushes = Vec::new();
        for (signal, shutdown) in pipeline.shutdowns(FLUSH_TIMEOUT) {
            // Each signal has its own timeout: some collectors accept only traces.
            let is_failing =
                pipeline.losses.iter().any(|losses| losses.signal == signal && losses.is_failing());
            let (done, waiting) = mpsc::channel::<()>();
            // A thread that hangs ends with the process.
            let _ = std::thread::Builder::new().name("flush".to_owned()).spawn(move || {
                let _ = shutdown();
                drop(done);
            });
            let timeout = if is_failing { FLUSH_TIMEOUT_FAILING } else { FLUSH_TIMEOUT };
            flushes.push((start + timeout, waiting));
        }
        for (deadline, done) in flushes {
            let _ = done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        for losses in &pipeline.losses {
            losses.log_rest();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(stderr) = STDERR.get() {
            stderr.flush();
        }
    }
}
