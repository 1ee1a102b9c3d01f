//! The requests that carry entries: one text, or many as lines of JSON.

use std::sync::Arc;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::{ATTEMPT, AttemptError, at_fault};
use hubspoke_protocol::{HUB_SOURCE, LOG_PATH, ServiceInfo};

/// In `Meta` of a log instance that takes `application/x-ndjson` with keys, traces and levels; others take texts.
pub const BATCH_META: (&str, &str) = ("log.batch", "ndjson");
/// What makes a request's entries count once.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Whether an instance takes many entries in one request.
pub(super) fn takes_batches(instance: &ServiceInfo) -> bool {
    instance.meta.get(BATCH_META.0).is_some_and(|kind| kind == BATCH_META.1)
}

/// An entry on its way.
#[derive(Debug, Clone, Default)]
pub(super) struct Item {
    pub(super) text: String,
    pub(super) level: Option<&'static str>,
    pub(super) fields: Map<String, Value>,
    /// Trace context of the sender, as headers.
    pub(super) trace: HeaderMap,
    /// The same in each attempt, so that readers know copies.
    pub(super) key: Option<String>,
}

/// One line of a batch.
#[derive(Serialize)]
struct Line<'a> {
    msg: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    fields: &'a Map<String, Value>,
}

/// What a log instance says of a batch: the entries that it did not take.
#[derive(Debug, Default, Deserialize)]
struct Reply {
    /// The first ones.
    #[serde(default)]
    failed: Vec<Failed>,
    #[serde(default)]
    failed_count: usize,
}

#[derive(Debug, Deserialize)]
struct Failed {
    /// From 1.
    line: usize,
    status: u16,
}

/// Adds an entry to a batch.
fn line(body: &mut Vec<u8>, item: &Item, with_key: bool) {
    let traceparent = item.trace.get("traceparent").and_then(|value| value.to_str().ok());
    let line = Line {
        msg: &item.text,
        level: item.level,
        trace_id: traceparent.and_then(|parent| parent.split('-').nth(1)),
        key: item.key.as_deref().filter(|_| with_key),
        fields: &item.fields,
    };
    // Texts and JSON values can't fail to serialize.
    let _ = serde_json::to_writer(&mut *body, &line);
    body.push(b'\n');
}

/// Posts entries to instances, signed with their sender.
#[derive(Debug, Clone)]
pub(super) struct Poster {
    pub(super) http: reqwest::Client,
    pub(super) source: Arc<str>,
}

impl Poster {
    /// One entry as text.
    pub(super) async fn text(&self, addr: &str, item: &Item) -> Result<StatusCode, AttemptError> {
        let mut request = self
            .http
            .post(format!("http://{addr}{LOG_PATH}"))
            .headers(item.trace.clone())
            .header(HUB_SOURCE, &*self.source)
            .header(CONTENT_TYPE, "text/plain; charset=utf-8");
        if let Some(key) = &item.key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        self.answer(request.body(item.text.clone())).await.map(|(status, _)| status)
    }

    /// Many entries in one request, with the outcome of each. `key` is for the whole; without it each has its own.
    pub(super) async fn batch<'a>(
        &self,
        addr: &str,
        items: impl Iterator<Item = &'a Item> + Clone,
        key: Option<&str>,
    ) -> Vec<Result<StatusCode, AttemptError>> {
        let mut body = Vec::new();
        for item in items.clone() {
            line(&mut body, item, key.is_none());
        }
        let (status, reply) = match self.lines(addr, body, key).await {
            Ok(answer) => answer,
            Err(error) => return items.map(|_| Err(error.clone())).collect(),
        };
        let Reply { failed, failed_count } = reply;
        // Where the batch as such was refused, one by one each gets what it deserves; and where more failed than are
        // named, those behind the last one that is.
        let known = match failed.last() {
            None if at_fault(status) => 0,
            Some(last) if failed_count > failed.len() => last.line,
            _ => usize::MAX,
        };
        let mut outcomes = Vec::new();
        for (at, item) in items.enumerate() {
            outcomes.push(if at < known { Ok(status) } else { self.one(addr, item).await });
        }
        for Failed { line, status } in failed {
            if let (Some(outcome), Ok(status)) =
                (line.checked_sub(1).and_then(|at| outcomes.get_mut(at)), StatusCode::from_u16(status))
            {
                *outcome = Ok(status);
            }
        }
        outcomes
    }

    /// One entry with all it says, as a batch of one.
    async fn one(&self, addr: &str, item: &Item) -> Result<StatusCode, AttemptError> {
        let mut body = Vec::new();
        line(&mut body, item, false);
        let (status, reply) = self.lines(addr, body, item.key.as_deref()).await?;
        let own = reply.failed.first().and_then(|failed| StatusCode::from_u16(failed.status).ok());
        Ok(own.unwrap_or(status))
    }

    async fn lines(
        &self,
        addr: &str,
        body: Vec<u8>,
        key: Option<&str>,
    ) -> Result<(StatusCode, Reply), AttemptError> {
        let mut request = self
            .http
            .post(format!("http://{addr}{LOG_PATH}"))
            .header(HUB_SOURCE, &*self.source)
            .header(CONTENT_TYPE, "application/x-ndjson");
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        let (status, reply) = self.answer(request.body(body)).await?;
        Ok((status, serde_json::from_slice(&reply).unwrap_or_default()))
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<(StatusCode, Vec<u8>), AttemptError> {
        let answer = timeout_at(Instant::now() + ATTEMPT, async {
            let reply = request.send().await?;
            let status = reply.status();
            // Read to its end, so that the connection can be used again.
            Ok::<_, reqwest::Error>((status, reply.bytes().await?.to_vec()))
        });
        answer.await.map_err(|_| AttemptError::TimedOut)?.map_err(|error| AttemptError::Http(Arc::new(error)))
    }
}
