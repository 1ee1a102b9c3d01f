//! The process-wide export pipeline, and its interface for services.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{BatchConfigBuilder as LogBatchConfig, BatchLogProcessor, SdkLoggerProvider};
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder as SpanBatchConfig, BatchSpanProcessor, SdkTracerProvider,
};
use parking_lot::Mutex;

use super::counting::CountingProcessor;
use super::exporters::{ExporterParts, OtlpEndpoint};
use super::instance::{BoundInstances, ServiceInstance, new_instance_id};
use super::losses::SignalLosses;
use super::propagation::set_propagator;
use super::sampler::HousekeepingSampler;
use super::settings::TelemetrySettings;

/// Instrumentation scope of all our telemetry.
pub(crate) const SCOPE: &str = "hubspoke";

/// Set once, at the start of the process.
pub(super) static PIPELINE: OnceLock<Pipeline> = OnceLock::new();

pub(super) struct Pipeline {
    settings: Arc<TelemetrySettings>,
    instances: Arc<BoundInstances>,
    metrics: Option<(OtlpEndpoint, Arc<SignalLosses>)>,
    pub(super) losses: Vec<Arc<SignalLosses>>,
    pub(super) tracer: Option<SdkTracerProvider>,
    pub(super) logger: Option<SdkLoggerProvider>,
    meters: Mutex<Vec<SdkMeterProvider>>,
}

/// Shuts down one provider; blocks for up to its timeout.
pub(super) type ShutdownProvider = Box<dyn FnOnce() -> OTelSdkResult + Send>;

impl Pipeline {
    /// # Errors
    /// If the thread for exports can't be started.
    pub(super) fn new(settings: TelemetrySettings) -> std::io::Result<Self> {
        let settings = Arc::new(settings);
        let instances = Arc::new(BoundInstances::default());
        let name = settings.process.name;
        let process = ServiceInstance::new(name, &new_instance_id(name));
        let mut losses = Vec::new();
        let mut count_losses = |signal, url: &str, queue| {
            let counted = Arc::new(SignalLosses::new(signal, url, queue));
            losses.push(counted.clone());
            counted
        };
        let parts = |otlp, losses| ExporterParts {
            otlp,
            settings: settings.clone(),
            instances: instances.clone(),
            process: process.clone(),
            losses,
        };
        let tracer = match &settings.traces {
            None => None,
            Some(endpoint) => {
                let losses = count_losses("traces", &endpoint.url, settings.spans.size);
                let queue = BatchSpanProcessor::new(
                    parts(OtlpEndpoint::new(endpoint)?, losses.clone()).spans(),
                    SpanBatchConfig::default()
                        .with_max_queue_size(settings.spans.size)
                        .with_max_export_batch_size(settings.spans.batch)
                        .with_scheduled_delay(settings.spans.delay)
                        .build(),
                );
                let provider = SdkTracerProvider::builder()
                    .with_span_processor(CountingProcessor { queue, losses })
                    .with_sampler(HousekeepingSampler::new(settings.sampler.clone(), settings.heartbeats));
                Some(provider.build())
            }
        };
        let logger = match &settings.logs {
            None => None,
            Some(endpoint) => {
                let losses = count_losses("logs", &endpoint.url, settings.records.size);
                let exporter = parts(OtlpEndpoint::new(endpoint)?, losses.clone()).records();
                let batches = LogBatchConfig::default()
                    .with_max_queue_size(settings.records.size)
                    .with_max_export_batch_size(settings.records.batch)
                    .with_scheduled_delay(settings.records.delay)
                    .build();
                let queue = BatchLogProcessor::builder(exporter).with_batch_config(batches).build();
                let provider =
                    SdkLoggerProvider::builder().with_log_processor(CountingProcessor { queue, losses });
                Some(provider.build())
            }
        };
        let metrics = match &settings.metrics {
            None => None,
            Some(endpoint) => Some((OtlpEndpoint::new(endpoint)?, count_losses("metrics", &endpoint.url, 0))),
        };
        Ok(Self { settings, instances, metrics, losses, tracer, logger, meters: Mutex::default() })
    }

    /// The shutdown of every provider, with its signal.
    pub(super) fn shutdowns(&self, timeout: Duration) -> Vec<(&'static str, ShutdownProvider)> {
        let mut all: Vec<(_, ShutdownProvider)> = Vec::new();
        if let Some(tracer) = self.tracer.clone() {
            all.push(("traces", Box::new(move || tracer.shutdown_with_timeout(timeout))));
        }
        if let Some(logger) = self.logger.clone() {
            all.push(("logs", Box::new(move || logger.shutdown_with_timeout(timeout))));
        }
        for meter in self.meters.lock().drain(..) {
            all.push(("metrics", Box::new(move || meter.shutdown_with_timeout(timeout))));
        }
        all
    }
}

/// Adds a service that was bound in this process, so that its telemetry names it.
pub(crate) fn add_instance(instance: &ServiceInstance) {
    set_propagator(true, true); // no-op unless the process started without `boot`: a test, an embedding program
    if let Some(pipeline) = PIPELINE.get() {
        pipeline.instances.add(instance.clone());
    }
}

/// Whether spans are exported.
pub(crate) fn exports_traces() -> bool {
    PIPELINE.get().is_some_and(|pipeline| pipeline.tracer.is_some())
}

/// The resource of a service's metrics.
pub(crate) fn resource(instance: &ServiceInstance) -> Resource {
    match PIPELINE.get() {
        Some(pipeline) => pipeline.settings.resource(&instance.service, &instance.id),
        None => Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", instance.service.to_string()),
                KeyValue::new("service.instance.id", instance.id.to_string()),
            ])
            .build(),
    }
}

/// The reader that exports a service's metrics, if they are exported.
pub(crate) fn metrics_reader() -> Option<impl MetricReader> {
    let pipeline = PIPELINE.get()?;
    let (otlp, losses) = pipeline.metrics.as_ref()?;
    let exporter = otlp.metrics(pipeline.settings.temporality, losses.clone()).ok()?;
    Some(PeriodicReader::builder(exporter).with_interval(pipeline.settings.metrics_interval).build())
}

/// Adds a service's meter provider, to be flushed at shutdown. The first one also shows the telemetry that was lost.
pub(crate) fn add_meter_provider(provider: &SdkMeterProvider) {
    let Some(pipeline) = PIPELINE.get() else { return };
    let mut meters = pipeline.meters.lock();
    if meters.is_empty() {
        let losses = pipeline.losses.clone();
        provider
            .meter(SCOPE)
            .u64_observable_counter("hub.telemetry.lost")
            .with_description("Spans and log records that were not exported")
            .with_callback(move |lost| {
                for losses in losses.iter().filter(|losses| losses.signal != "metrics") {
                    lost.observe(losses.lost(), &[KeyValue::new("signal", losses.signal)]);
                }
            })
            .build();
    }
    meters.push(provider.clone());
}
