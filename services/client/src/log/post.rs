//! The requests that carry entries: one text, or a batch as lines of JSON.

use std::sync::Arc;
use std::time::Duration;

use hubspoke_protocol::{HUB_SOURCE, LOG_PATH, ServiceInfo};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::error::{AttemptError, entry_at_fault};
use crate::http::{HttpClient, SendError};
use crate::token::Token;

/// Timeout of one attempt: an instance that hangs must leave time for the others.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest answer, in bytes: a hundred failed lines, with a reason each. Anybody may register as a log instance.
const MAX_ANSWER: usize = 256 << 10;
/// The `Meta` of a log instance that takes batches (`application/x-ndjson` with keys, traces and levels). Others take
/// one text per request.
pub const BATCH_META: (&str, &str) = ("log.batch", "ndjson");
/// Header that makes the entries of a request count once, however often it is sent.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Whether an instance takes batches.
pub(super) fn takes_batches(instance: &ServiceInfo) -> bool {
    instance.meta.get(BATCH_META.0).is_some_and(|kind| kind == BATCH_META.1)
}

/// An entry to be sent.
#[derive(Debug, Clone, Default)]
pub(super) struct PendingEntry {
    pub(super) text: String,
    pub(super) level: Option<&'static str>,
    pub(super) fields: Map<String, Value>,
    /// When it happened, in RFC 3339.
    pub(super) time: Option<String>,
    /// Instead of the one in `trace`.
    pub(super) trace_id: Option<String>,
    /// Trace context of the sender, as headers.
    pub(super) trace: HeaderMap,
    /// The same in every attempt, so that readers recognize copies.
    pub(super) key: Option<String>,
}

/// One line of a batch.
#[derive(Serialize)]
struct BatchLine<'a> {
    msg: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    fields: &'a Map<String, Value>,
}

/// The answer to a batch: the entries that were not stored.
#[derive(Debug, Default, Deserialize)]
struct BatchAnswer {
    /// The first of them, in order.
    #[serde(default)]
    failed: Vec<FailedLine>,
    #[serde(default)]
    failed_count: usize,
}

#[derive(Debug, Deserialize)]
struct FailedLine {
    /// From 1.
    line: usize,
    status: u16,
}

impl PendingEntry {
    /// Adds this entry to the body of a batch.
    fn append_to(&self, body: &mut Vec<u8>, with_key: bool) {
        let traceparent = self.trace.get("traceparent").and_then(|value| value.to_str().ok());
        let line = BatchLine {
            msg: &self.text,
            level: self.level,
            ts: self.time.as_deref(),
            trace_id: self.trace_id.as_deref().or(traceparent.and_then(|parent| parent.split('-').nth(1))),
            key: self.key.as_deref().filter(|_| with_key),
            fields: &self.fields,
        };
        // Strings and JSON values always serialize.
        let _ = serde_json::to_writer(&mut *body, &line);
        body.push(b'\n');
    }
}

/// Posts entries to instances in the name of their sender.
#[derive(Debug, Clone)]
pub(super) struct Poster {
    pub(super) http: HttpClient,
    /// `NAME/ID`.
    pub(super) source: Arc<str>,
    pub(super) token: Option<Token>,
}

impl Poster {
    /// Posts one entry as text; its level and fields are dropped.
    pub(super) async fn text(&self, addr: &str, entry: &PendingEntry) -> Result<StatusCode, AttemptError> {
        let request = self.request(addr, "text/plain; charset=utf-8", entry.key.as_deref());
        let request = request.headers(entry.trace.clone()).body(entry.text.clone());
        self.send(request).await.map(|(status, _)| status)
    }

    /// Posts entries in one request and returns the outcome of each. With a `key`, that one is for the whole batch;
    /// otherwise every entry has its own.
    pub(super) async fn batch<'a>(
        &self,
        addr: &str,
        entries: impl Iterator<Item = &'a PendingEntry> + Clone,
        key: Option<&str>,
    ) -> Vec<Result<StatusCode, AttemptError>> {
        let mut body = Vec::new();
        for entry in entries.clone() {
            entry.append_to(&mut body, key.is_none());
        }
        let (status, answer) = match self.lines(addr, body, key).await {
            Ok(answer) => answer,
            Err(error) => return entries.map(|_| Err(error.clone())).collect(),
        };
        let BatchAnswer { failed, failed_count } = answer;
        // Entries with an unknown outcome are sent one by one: all of them if the batch as such was refused, and those
        // behind the last failed one that the answer names if there are more than it names.
        let known = match failed.last() {
            None if entry_at_fault(status) => 0,
            Some(last) if failed_count > failed.len() => last.line,
            _ => usize::MAX,
        };
        let mut outcomes = Vec::new();
        for (at, entry) in entries.enumerate() {
            outcomes.push(if at < known { Ok(status) } else { self.batch_of_one(addr, entry).await });
        }
        for FailedLine { line, status } in failed {
            if let (Some(outcome), Ok(status)) =
                (line.checked_sub(1).and_then(|at| outcomes.get_mut(at)), StatusCode::from_u16(status))
            {
                *outcome = Ok(status);
            }
        }
        outcomes
    }

    /// Posts one entry with its level and fields.
    async fn batch_of_one(&self, addr: &str, entry: &PendingEntry) -> Result<StatusCode, AttemptError> {
        let mut body = Vec::new();
        entry.append_to(&mut body, false);
        let (status, answer) = self.lines(addr, body, entry.key.as_deref()).await?;
        let own = answer.failed.first().and_then(|failed| StatusCode::from_u16(failed.status).ok());
        Ok(own.unwrap_or(status))
    }

    async fn lines(
        &self,
        addr: &str,
        body: Vec<u8>,
        key: Option<&str>,
    ) -> Result<(StatusCode, BatchAnswer), AttemptError> {
        let request = self.request(addr, "application/x-ndjson", key).body(body);
        let (status, answer) = self.send(request).await?;
        Ok((status, serde_json::from_slice(&answer).unwrap_or_default()))
    }

    fn request(&self, addr: &str, content_type: &str, key: Option<&str>) -> RequestBuilder {
        let request = self.http.request(Method::POST, format!("{}://{addr}{LOG_PATH}", self.http.scheme()));
        let mut request = request.header(HUB_SOURCE, &*self.source).header(CONTENT_TYPE, content_type);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.get());
        }
        match key {
            Some(key) => request.header(IDEMPOTENCY_KEY, key),
            None => request,
        }
    }

    /// Sends a request and reads the response to its end, so that the connection can be used again. Of one that is too
    /// long, only the status counts.
    async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), AttemptError> {
        let exchange = async {
            let mut response = self.http.send(request).await?;
            let mut answer = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                if answer.len() + chunk.len() > MAX_ANSWER {
                    answer.clear();
                    break;
                }
                answer.extend_from_slice(&chunk);
            }
            Ok::<_, SendError>((response.status(), answer))
        };
        Ok(timeout(ATTEMPT_TIMEOUT, exchange).await.map_err(|_| AttemptError::TimedOut)??)
    }
}
