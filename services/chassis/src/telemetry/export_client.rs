//! The HTTP client of the exporters, for OTLP over HTTP and gRPC. It also reads the collector's answers: one that accepts a
//! batch may have rejected part of it (OTLP's "partial success"), which the SDK does not report; nor does it report why a
//! collector can't be reached.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hubspoke_client::with_causes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use parking_lot::Mutex;
use prost::Message;
use tokio::runtime::{Builder, Runtime};

use super::export_connector::ExportConnector;
use super::grpc;
use super::otel_env::Endpoint;

/// Longest answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(30);

/// Where exports run: the SDK calls the client on threads without a runtime, and the process's own ends before the last
/// export.
static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// An HTTP client that counts rejected items. Clones share the count.
#[derive(Debug, Clone)]
pub(super) struct ExportClient {
    runtime: &'static Runtime,
    inner: Client<ExportConnector, Full<Bytes>>,
    grpc: bool,
    timeout: Duration,
    rejected: Arc<AtomicU64>,
    failure: Arc<Mutex<Option<String>>>,
}

impl ExportClient {
    /// # Errors
    /// If the thread for exports can't be started.
    pub(super) fn new(endpoint: &Endpoint) -> io::Result<Self> {
        let runtime = match RUNTIME.get() {
            Some(runtime) => runtime,
            None => {
                let runtime =
                    Builder::new_multi_thread().worker_threads(1).thread_name("otlp").enable_all().build()?;
                RUNTIME.get_or_init(|| runtime)
            }
        };
        let protocol: &[u8] = if endpoint.grpc { b"h2" } else { b"http/1.1" };
        let connector = ExportConnector::new(endpoint.tls.clone(), protocol);
        let inner = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(1)
            .http2_only(endpoint.grpc)
            .build(connector);
        let (grpc, timeout) = (endpoint.grpc, endpoint.timeout);
        Ok(Self { runtime, inner, grpc, timeout, rejected: Arc::default(), failure: Arc::default() })
    }

    /// The items that were rejected since the last call.
    pub(super) fn take_rejected(&self) -> usize {
        usize::try_from(self.rejected.swap(0, Relaxed)).unwrap_or(usize::MAX)
    }

    /// A failed export with its cause, if that is known here.
    pub(super) fn explain(&self, result: OTelSdkResult) -> OTelSdkResult {
        let failure = self.failure.lock().take();
        result.map_err(|error| failure.map_or(error, OTelSdkError::InternalFailure))
    }

    async fn exchange(
        &self,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Box<dyn Error + Send + Sync>> {
        let request = if self.grpc { grpc::request(request) } else { request };
        let response = self.inner.request(request.map(Full::new)).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?;
        let trailers = body.trailers().cloned();
        let response = Response::from_parts(head, body.to_bytes());
        if !self.grpc {
            return Ok(response);
        }
        let (response, failure) = grpc::response(response, trailers.as_ref());
        *self.failure.lock() = failure;
        Ok(response)
    }

    fn count_rejected(&self, response: &Response<Bytes>) {
        // The answers for spans, log records and metrics have the same encoding.
        if response.status().is_success()
            && let Ok(answer) = ExportTraceServiceResponse::decode(response.body().clone())
            && let Some(partial) = answer.partial_success
        {
            self.rejected.fetch_add(u64::try_from(partial.rejected_spans).unwrap_or(0), Relaxed);
        }
    }
}

type ResponseFuture<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for ExportClient {
    fn send_bytes<'a, 'b>(&'a self, request: Request<Bytes>) -> ResponseFuture<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        let this = self.clone();
        let task = self.runtime.spawn(async move {
            let exchange = tokio::time::timeout(this.timeout, this.exchange(request)).await;
            let failure = match exchange {
                Ok(Ok(response)) => {
                    this.count_rejected(&response);
                    return Ok(response);
                }
                Ok(Err(error)) => with_causes(error.as_ref()),
                Err(_) => format!("no answer within {:?}", this.timeout),
            };
            *this.failure.lock() = Some(failure.clone());
            Err(HttpError::from(failure))
        });
        Box::pin(async move { task.await? })
    }
}
