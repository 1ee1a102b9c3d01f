//! The HTTP client that exporters send with: a blocking one, which also looks at what the collector answers. One that
//! takes a batch may still have rejected some of it (OTLP's "partial success"), and the SDK only says so to itself.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

/// See the module's description. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Client {
    inner: reqwest::blocking::Client,
    rejected: Arc<AtomicU64>,
}

impl Client {
    /// # Errors
    /// Where the client can't be made.
    pub(super) fn new(
        builder: reqwest::blocking::ClientBuilder,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        // On a thread of its own: a blocking client can't be made on an async one, which may be where we are.
        let made = std::thread::spawn(|| builder.build()).join();
        let inner = made.map_err(|_| "the thread that makes it has panicked")??;
        Ok(Self { inner, rejected: Arc::default() })
    }

    /// Items that were rejected since this was last asked.
    pub(super) fn rejected(&self) -> usize {
        usize::try_from(self.rejected.swap(0, Relaxed)).unwrap_or(usize::MAX)
    }
}

type Answering<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(&'a self, request: Request<Bytes>) -> Answering<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let response = self.inner.send_bytes(request).await?;
            // The answers to spans, log records and metrics differ in names only.
            if response.status().is_success()
                && let Ok(answer) = ExportTraceServiceResponse::decode(response.body().clone())
                && let Some(partial) = answer.partial_success
            {
                self.rejected.fetch_add(u64::try_from(partial.rejected_spans).unwrap_or(0), Relaxed);
            }
            Ok(response)
        })
    }
}
