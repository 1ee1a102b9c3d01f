//! An OpenTelemetry collector (OTLP over HTTP, protobuf): decodes what it receives and records it in a shape that
//! is easy to assert on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::resource::v1::Resource;
use parking_lot::Mutex;
use prost::Message;

use crate::server::TestServer;

/// Attributes as text.
pub type Attributes = BTreeMap<String, String>;

/// A collector on a free port, until it is dropped.
///
/// ```
/// use hubspoke_testkit::otlp::Collector;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let collector = Collector::start().await;
/// // … run a process with OTEL_EXPORTER_OTLP_ENDPOINT set to `collector.url()`, then:
/// assert!(collector.received().spans.is_empty());
/// # }
/// ```
#[derive(Debug)]
pub struct Collector {
    received: Arc<Mutex<Received>>,
    server: TestServer,
}

/// How a collector answers a request, by its path.
pub type ExportReplies = fn(&str) -> ExportReply;

/// How a collector answers one request.
#[derive(Debug, Clone, Copy)]
pub struct ExportReply {
    /// How long the answer takes.
    pub delay: Duration,
    /// Its status. Requests that are not answered with success are not decoded.
    pub status: StatusCode,
    /// How many items of the request it reports as rejected; they are recorded nevertheless.
    pub rejected: i64,
}

impl ExportReply {
    /// 200, at once.
    pub const ACCEPTED: Self = Self { delay: Duration::ZERO, status: StatusCode::OK, rejected: 0 };
}

/// What a collector has received so far.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// Spans, in order of arrival.
    pub spans: Vec<Span>,
    /// Log records, in order of arrival.
    pub logs: Vec<LogRecord>,
    /// Data points of all metrics, in order of arrival.
    pub points: Vec<DataPoint>,
    /// The headers of each request that was answered.
    pub requests: Vec<HeaderMap>,
    /// The path of each request that was answered.
    pub paths: Vec<String>,
}

/// A span.
#[derive(Debug, Clone)]
pub struct Span {
    /// The sender's resource attributes.
    pub resource: Attributes,
    /// Its name.
    pub name: String,
    /// `server`, `client`, `internal`.
    pub kind: &'static str,
    /// Hexadecimal.
    pub trace: String,
    /// Hexadecimal.
    pub id: String,
    /// Hexadecimal; empty for a root.
    pub parent: String,
    /// Attributes.
    pub attributes: Attributes,
    /// Whether its status is an error.
    pub failed: bool,
    /// How many events it has.
    pub events: usize,
}

/// A log record.
#[derive(Debug, Clone)]
pub struct LogRecord {
    /// The sender's resource attributes.
    pub resource: Attributes,
    /// The message.
    pub body: String,
    /// `INFO`, `WARN`.
    pub severity: String,
    /// Hexadecimal; empty outside a trace.
    pub trace: String,
    /// Attributes.
    pub attributes: Attributes,
}

/// One point of a metric.
#[derive(Debug, Clone)]
pub struct DataPoint {
    /// The sender's resource attributes.
    pub resource: Attributes,
    /// The metric's name.
    pub name: String,
    /// The metric's unit.
    pub unit: String,
    /// Attributes.
    pub attributes: Attributes,
    /// Its value; a histogram's count.
    pub value: f64,
}

impl Collector {
    /// Starts one that accepts everything.
    pub async fn start() -> Self {
        Self::replying(|_| ExportReply::ACCEPTED).await
    }

    /// Starts one that answers as `replies` says.
    pub async fn replying(replies: ExportReplies) -> Self {
        let received: Arc<Mutex<Received>> = Arc::default();
        let routes = Router::new()
            .route("/v1/traces", post(export))
            .route("/v1/metrics", post(export))
            .route("/v1/logs", post(export))
            .with_state((received.clone(), replies));
        Self { received, server: TestServer::start(routes).await }
    }

    /// The value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// What it has received so far.
    pub fn received(&self) -> Received {
        self.received.lock().clone()
    }

    /// How many requests to a path were answered.
    pub fn answered(&self, path: &str) -> usize {
        self.received.lock().paths.iter().filter(|known| *known == path).count()
    }
}

async fn export(
    State((received, replies)): State<(Arc<Mutex<Received>>, ExportReplies)>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let body = match headers.get("content-encoding") {
        Some(encoding) if encoding == "gzip" => {
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&body[..]), &mut plain).unwrap();
            Bytes::from(plain)
        }
        _ => body,
    };
    let reply = replies(uri.path());
    // A client that gives up meanwhile cancels this: its request counts as not answered.
    tokio::time::sleep(reply.delay).await;
    let mut received = received.lock();
    received.requests.push(headers);
    received.paths.push(uri.path().to_owned());
    if !reply.status.is_success() {
        return (reply.status, Vec::new());
    }
    match uri.path() {
        "/v1/traces" => received.spans.extend(spans(ExportTraceServiceRequest::decode(body).unwrap())),
        "/v1/logs" => received.logs.extend(logs(ExportLogsServiceRequest::decode(body).unwrap())),
        _ => received.points.extend(points(ExportMetricsServiceRequest::decode(body).unwrap())),
    }
    let partial = ExportTracePartialSuccess { rejected_spans: reply.rejected, ..Default::default() };
    // The responses for log records and metrics differ in field names only.
    let body = ExportTraceServiceResponse { partial_success: (reply.rejected > 0).then_some(partial) };
    (reply.status, body.encode_to_vec())
}

fn spans(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut all = Vec::new();
    for group in request.resource_spans {
        let resource = of_resource(group.resource);
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            all.push(Span {
                resource: resource.clone(),
                kind: ["unspecified", "internal", "server", "client"][span.kind as usize],
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                attributes: attributes(span.attributes),
                failed: span.status.is_some_and(|status| status.code == 2),
                events: span.events.len(),
                name: span.name,
            });
        }
    }
    all
}

fn logs(request: ExportLogsServiceRequest) -> Vec<LogRecord> {
    let mut all = Vec::new();
    for group in request.resource_logs {
        let resource = of_resource(group.resource);
        for record in group.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
            all.push(LogRecord {
                resource: resource.clone(),
                body: text(record.body),
                severity: record.severity_text,
                trace: hex(&record.trace_id),
                attributes: attributes(record.attributes),
            });
        }
    }
    all
}

fn points(request: ExportMetricsServiceRequest) -> Vec<DataPoint> {
    let mut all = Vec::new();
    for group in request.resource_metrics {
        let resource = of_resource(group.resource);
        for metric in group.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
            let values: Vec<(Vec<KeyValue>, f64)> = match metric.data {
                Some(Data::Gauge(gauge)) => gauge
                    .data_points
                    .into_iter()
                    .map(|point| (point.attributes, number(point.value)))
                    .collect(),
                Some(Data::Sum(sum)) => {
                    sum.data_points.into_iter().map(|point| (point.attributes, number(point.value))).collect()
                }
                Some(Data::Histogram(histogram)) => {
                    let points = histogram.data_points.into_iter();
                    points.map(|point| (point.attributes, point.count as f64)).collect()
                }
                other => panic!("{}: {other:?}", metric.name),
            };
            all.extend(values.into_iter().map(|(of, value)| DataPoint {
                resource: resource.clone(),
                name: metric.name.clone(),
                unit: metric.unit.clone(),
                attributes: attributes(of),
                value,
            }));
        }
    }
    all
}

fn number(value: Option<number_data_point::Value>) -> f64 {
    match value {
        Some(number_data_point::Value::AsDouble(value)) => value,
        Some(number_data_point::Value::AsInt(value)) => value as f64,
        None => f64::NAN,
    }
}

fn of_resource(resource: Option<Resource>) -> Attributes {
    attributes(resource.map(|resource| resource.attributes).unwrap_or_default())
}

fn attributes(list: Vec<KeyValue>) -> Attributes {
    list.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(truth)) => truth.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
