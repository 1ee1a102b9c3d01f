//! An OTLP receiver for tests (http/protobuf, on a free port): decodes what it is sent and keeps it, in a shape that
//! tests can speak about.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
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
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Attributes as text.
pub type Attributes = BTreeMap<String, String>;

/// A receiver that runs until it is dropped.
pub struct Receiver {
    /// Where it listens.
    pub addr: SocketAddr,
    received: Arc<Mutex<Received>>,
    server: JoinHandle<()>,
}

/// How a receiver answers requests to a path.
pub type Answers = fn(&str) -> Answer;

/// What a request is answered with.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// How long it takes.
    pub after: Duration,
    /// Its status. What is not answered with success is not kept.
    pub status: StatusCode,
    /// How many items of each request it says it has rejected, although it keeps them.
    pub rejected: i64,
}

impl Answer {
    /// Everything is taken, at once.
    pub const TAKEN: Self = Self { after: Duration::ZERO, status: StatusCode::OK, rejected: 0 };
}

/// What came so far.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// Spans, in the order in which they came.
    pub spans: Vec<Span>,
    /// Log records, in the order in which they came.
    pub logs: Vec<Log>,
    /// Points of all metrics, in the order in which they came.
    pub points: Vec<Point>,
    /// The headers of each request.
    pub requests: Vec<HeaderMap>,
    /// The path of each request.
    pub paths: Vec<String>,
}

/// A span.
#[derive(Debug, Clone)]
pub struct Span {
    /// Attributes of whoever sent it.
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
pub struct Log {
    /// Attributes of whoever sent it.
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
pub struct Point {
    /// Attributes of whoever sent it.
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

impl Receiver {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        Self::answering(|_| Answer::TAKEN).await
    }

    /// Starts one that answers as it is told.
    pub async fn answering(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let received: Arc<Mutex<Received>> = Arc::default();
        let app = Router::new()
            .route("/v1/traces", post(take))
            .route("/v1/metrics", post(take))
            .route("/v1/logs", post(take))
            .with_state((received.clone(), answers));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { addr, received, server }
    }

    /// What a process's endpoint variable is to be.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What came so far.
    pub fn received(&self) -> Received {
        self.received.lock().unwrap().clone()
    }

    /// How many requests to a path were answered.
    pub fn answered(&self, path: &str) -> usize {
        self.received.lock().unwrap().paths.iter().filter(|known| *known == path).count()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(
    State((received, answers)): State<(Arc<Mutex<Received>>, Answers)>,
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
    let answer = answers(uri.path());
    // Whoever gives up meanwhile ends this here.
    tokio::time::sleep(answer.after).await;
    let mut received = received.lock().unwrap();
    received.requests.push(headers);
    received.paths.push(uri.path().to_owned());
    if !answer.status.is_success() {
        return (answer.status, Vec::new());
    }
    match uri.path() {
        "/v1/traces" => received.spans.extend(spans(ExportTraceServiceRequest::decode(body).unwrap())),
        "/v1/logs" => received.logs.extend(logs(ExportLogsServiceRequest::decode(body).unwrap())),
        _ => received.points.extend(points(ExportMetricsServiceRequest::decode(body).unwrap())),
    }
    let partial = ExportTracePartialSuccess { rejected_spans: answer.rejected, ..Default::default() };
    // The answers to log records and metrics differ in names only.
    let body = ExportTraceServiceResponse { partial_success: (answer.rejected > 0).then_some(partial) };
    (answer.status, body.encode_to_vec())
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

fn logs(request: ExportLogsServiceRequest) -> Vec<Log> {
    let mut all = Vec::new();
    for group in request.resource_logs {
        let resource = of_resource(group.resource);
        for record in group.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
            all.push(Log {
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

fn points(request: ExportMetricsServiceRequest) -> Vec<Point> {
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
            all.extend(values.into_iter().map(|(of, value)| Point {
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
