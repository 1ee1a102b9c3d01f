//! From the SDK to the collector: spans and log records wait in the SDK's bounded queues, are sent by the SDK's own
//! threads, and each loss is counted. The thread that serves a request never waits for any of it.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::logs::Severity;
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_otlp::{
    Compression, ExporterBuildError, LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig,
    WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::logs::{LogBatch, LogProcessor, SdkLogRecord};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

use super::client::Client;
use super::report::Report;
use super::settings::{Endpoint, Settings};
use super::source::{Source, Sources};

/// How long the collector may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes exporters for one endpoint, over one HTTP client.
#[derive(Debug, Clone)]
pub(super) struct Otlp {
    endpoint: Endpoint,
    client: Client,
}

impl Otlp {
    /// # Errors
    /// Where the client can't be made.
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let builder = reqwest::blocking::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(endpoint.timeout);
        Ok(Self { endpoint: endpoint.clone(), client: Client::new(builder)? })
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
        report: Arc<Report>,
    ) -> Result<Metrics, ExporterBuildError> {
        let builder = self.configured(MetricExporter::builder().with_http());
        Ok(Metrics { exporter: builder.with_temporality(temporality).build()?, report })
    }
}

/// Sends each source's items with that source's resource.
pub(super) struct BySource<E> {
    otlp: Otlp,
    make: fn(&Otlp, &Resource) -> Result<E, ExporterBuildError>,
    settings: Arc<Settings>,
    sources: Arc<Sources>,
    /// One per service in this process, and one for what belongs to none.
    exporters: Mutex<HashMap<Source, Arc<E>>>,
    /// Who speaks where no service of this process does.
    process: Source,
    report: Arc<Report>,
}

impl<E> BySource<E> {
    fn exporter(&self, source: Option<Source>) -> Result<Arc<E>, OTelSdkError> {
        let source = source.or_else(|| self.sources.only()).unwrap_or_else(|| self.process.clone());
        let mut exporters = self.exporters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(exporter) = exporters.get(&source) {
            return Ok(exporter.clone());
        }
        let resource = self.settings.resource(&source.service, &source.instance);
        let made = (self.make)(&self.otlp, &resource);
        let made = Arc::new(made.map_err(|error| OTelSdkError::InternalFailure(error.to_string()))?);
        exporters.insert(source, made.clone());
        Ok(made)
    }
}

impl<E> fmt::Debug for BySource<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BySource").field("report", &self.report).finish_non_exhaustive()
    }
}

/// What exporters of both kinds are made of.
pub(super) struct Parts {
    pub(super) otlp: Otlp,
    pub(super) settings: Arc<Settings>,
    pub(super) sources: Arc<Sources>,
    pub(super) process: Source,
    pub(super) report: Arc<Report>,
}

impl Parts {
    fn by_source<E>(self, make: fn(&Otlp, &Resource) -> Result<E, ExporterBuildError>) -> BySource<E> {
        let Self { otlp, settings, sources, process, report } = self;
        BySource { otlp, make, settings, sources, exporters: Mutex::default(), process, report }
    }

    pub(super) fn spans(self) -> BySource<SpanExporter> {
        self.by_source(Otlp::spans)
    }

    pub(super) fn records(self) -> BySource<LogExporter> {
        self.by_source(Otlp::records)
    }
}

impl opentelemetry_sdk::trace::SpanExporter for BySource<SpanExporter> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.report.taken(batch.len());
        let mut groups: HashMap<Option<Source>, Vec<SpanData>> = HashMap::new();
        for mut span in batch {
            let source = Source::taken_from(&mut span);
            groups.entry(source).or_default().push(span);
        }
        let (mut lost, mut all) = (0, Ok(()));
        for (source, spans) in groups {
            let count = spans.len();
            let sent = match self.exporter(source) {
                Ok(exporter) => exporter.export(spans).await,
                Err(error) => Err(error),
            };
            lost += if sent.is_err() { count } else { 0 };
            all = all.and(sent);
        }
        self.report.sent(lost + self.otlp.client.rejected(), &all);
        all
    }
}

impl opentelemetry_sdk::logs::LogExporter for BySource<LogExporter> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let count = batch.iter().count();
        self.report.taken(count);
        let sent = match self.exporter(None) {
            Ok(exporter) => exporter.export(batch).await,
            Err(error) => Err(error),
        };
        let lost = if sent.is_err() { count } else { self.otlp.client.rejected() };
        self.report.sent(lost, &sent);
        sent
    }
}

/// In front of a queue of the SDK: lets in only what finds room, so that every loss is one that we count.
#[derive(Debug)]
pub(super) struct Bounded<P> {
    pub(super) queue: P,
    pub(super) report: Arc<Report>,
}

impl<P: SpanProcessor> SpanProcessor for Bounded<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        Source::note(span, context);
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.report.admit() {
            self.queue.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }
}

impl<P: LogProcessor> LogProcessor for Bounded<P> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.report.admit() {
            self.queue.emit(record, scope);
        }
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.queue.event_enabled(level, target, name)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }
}

/// Metrics are totals: one export that fails loses nothing once another gets through.
#[derive(Debug)]
pub(super) struct Metrics {
    exporter: MetricExporter,
    report: Arc<Report>,
}

impl PushMetricExporter for Metrics {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let sent = self.exporter.export(metrics).await;
        self.report.sent(0, &sent);
        sent
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
