//! The HTTP client of the exporters. It also reads the collector's answers: one that accepts a batch may have rejected
//! part of it (OTLP's "partial success"), which the SDK does not report.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

/// A blocking HTTP client that counts rejected items. Clones share the count.
#[derive(Debug, Clone)]
pub(super) struct ExportClient {
    inner: reqwest::blocking::Client,
    rejected: Arc<AtomicU64>,
}

impl ExportClient {
    /// # Errors
    /// If the client can't be made.
    pub(super) fn new(
        builder: reqwest::blocking::ClientBuilder,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        // reqwest refuses to make a blocking client on an async thread, and the caller may be on one.
        let made = std::thread::spawn(|| builder.build()).join();
        let inner = made.map_err(|_| "the thread that makes the client panicked")??;
        Ok(Self { inner, rejected: Arc::default() })
    }

    /// The items that were rejected since the last call.
    pub(super) fn take_rejected(&self) -> usize {
        usize::try_from(self.rejected.swap(0, Relaxed)).unwrap_or(usize::MAX)
    }
}

type ResponseFuture<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for ExportClient {
    fn send_bytes<'a, 'b>(&'a self, request: Request<Bytes>) -> ResponseFuture<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let response = self.inner.send_bytes(request).await?;
            // The answers for spans, log records and metrics have the same encoding.
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
