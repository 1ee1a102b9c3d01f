//! Exporters: the SDK's queues call them on their threads, and they count the items that are lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use opentelemetry_otlp::{
    Compression, ExporterBuildError, LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig,
    WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::logs::LogBatch;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::SpanData;
use parking_lot::Mutex;

use super::export_client::ExportClient;
use super::instance::{BoundInstances, ServiceInstance};
use super::losses::SignalLosses;
use super::otel_env::Endpoint;
use super::settings::TelemetrySettings;

/// One endpoint of the collector. All its exporters share an HTTP client.
#[derive(Debug, Clone)]
pub(super) struct OtlpEndpoint {
    endpoint: Endpoint,
    client: ExportClient,
}

impl OtlpEndpoint {
    /// # Errors
    /// If the HTTP client can't be made.
    pub(super) fn new(endpoint: &Endpoint) -> io::Result<Self> {
        Ok(Self { endpoint: endpoint.clone(), client: ExportClient::new(endpoint)? })
    }

    fn configured<B: WithExportConfig + WithHttpConfig>(&self, builder: B) -> B {
        let builder = builder
            .with_endpoint(&self.endpoint.url)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(self.endpoint.timeout)
            .with_headers(self.endpoint.headers.clone())
            .with_http_client(self.client.clone());
        if self.endpoint.gzip { builder.with_compression(Compression::Gzip) } else { builder }
    }

    fn spans(&self, resource: &Resource) -> Result<SpanExporter, ExporterBuildError> {
        let mut exporter = self.configured(SpanExporter::builder().with_http()).build()?;
        opentelemetry_sdk::trace::SpanExporter::set_resource(&mut exporter, resource);
        Ok(exporter)
    }

    fn records(&self, resource: &Resource) -> Result<LogExporter, ExporterBuildError> {
        let mut exporter = self.configured(LogExporter::builder().with_http()).build()?;
        opentelemetry_sdk::logs::LogExporter::set_resource(&mut exporter, resource);
        Ok(exporter)
    }

    pub(super) fn metrics(
        &self,
        temporality: Temporality,
        losses: Arc<SignalLosses>,
    ) -> Result<MetricsExporter, ExporterBuildError> {
        let builder = self.configured(MetricExporter::builder().with_http());
        let exporter = builder.with_temporality(temporality).build()?;
        Ok(MetricsExporter { exporter, client: self.client.clone(), losses })
    }
}

/// Exports each instance's items with that instance's resource.
pub(super) struct PerInstanceExporter<E> {
    parts: ExporterParts,
    make: fn(&OtlpEndpoint, &Resource) -> Result<E, ExporterBuildError>,
    exporters: Mutex<HashMap<ServiceInstance, Arc<E>>>,
}

/// The parts of an exporter, the same for spans and log records.
pub(super) struct ExporterParts {
    pub(super) otlp: OtlpEndpoint,
    pub(super) settings: Arc<TelemetrySettings>,
    pub(super) instances: Arc<BoundInstances>,
    /// The instance of items that belong to no service of this process.
    pub(super) process: ServiceInstance,
    pub(super) losses: Arc<SignalLosses>,
}

impl ExporterParts {
    pub(super) fn spans(self) -> PerInstanceExporter<SpanExporter> {
        PerInstanceExporter { parts: self, make: OtlpEndpoint::spans, exporters: Mutex::default() }
    }

    pub(super) fn records(self) -> PerInstanceExporter<LogExporter> {
        PerInstanceExporter { parts: self, make: OtlpEndpoint::records, exporters: Mutex::default() }
    }
}

impl<E> PerInstanceExporter<E> {
    fn exporter(&self, instance: Option<ServiceInstance>) -> Result<Arc<E>, OTelSdkError> {
        let ExporterParts { otlp, settings, instances, process, .. } = &self.parts;
        let instance = instance.or_else(|| instances.single()).unwrap_or_else(|| process.clone());
        let mut exporters = self.exporters.lock();
        if let Some(exporter) = exporters.get(&instance) {
            return Ok(exporter.clone());
        }
        let made = (self.make)(otlp, &settings.resource(&instance.service, &instance.id));
        let made = Arc::new(made.map_err(|error| OTelSdkError::InternalFailure(error.to_string()))?);
        exporters.insert(instance, made.clone());
        Ok(made)
    }
}

impl<E> fmt::Debug for PerInstanceExporter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerInstanceExporter").field("losses", &self.parts.losses).finish_non_exhaustive()
    }
}

impl opentelemetry_sdk::trace::SpanExporter for PerInstanceExporter<SpanExporter> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.parts.losses.dequeued(batch.len());
        let mut groups: HashMap<Option<ServiceInstance>, Vec<SpanData>> = HashMap::new();
        for mut span in batch {
            let instance = ServiceInstance::take(&mut span);
            groups.entry(instance).or_default().push(span);
        }
        let (mut lost, mut result) = (0, Ok(()));
        for (instance, spans) in groups {
            let count = spans.len();
            let exported = match self.exporter(instance) {
                Ok(exporter) => exporter.export(spans).await,
                Err(error) => Err(error),
            };
            lost += if exported.is_err() { count } else { 0 };
            result = result.and(exported);
        }
        let result = self.parts.otlp.client.explain(result);
        self.parts.losses.exported(lost + self.parts.otlp.client.take_rejected(), &result);
        result
    }
}

impl opentelemetry_sdk::logs::LogExporter for PerInstanceExporter<LogExporter> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let count = batch.iter().count();
        self.parts.losses.dequeued(count);
        let result = match self.exporter(None) {
            Ok(exporter) => exporter.export(batch).await,
            Err(error) => Err(error),
        };
        let result = self.parts.otlp.client.explain(result);
        let lost = if result.is_err() { count } else { self.parts.otlp.client.take_rejected() };
        self.parts.losses.exported(lost, &result);
        result
    }
}

/// Metrics are totals, so a failed export loses nothing if a later one succeeds.
#[derive(Debug)]
pub(super) struct MetricsExporter {
    exporter: MetricExporter,
    client: ExportClient,
    losses: Arc<SignalLosses>,
}

impl PushMetricExporter for MetricsExporter {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.client.explain(self.exporter.export(metrics).await);
        self.losses.exported(0, &result);
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}
