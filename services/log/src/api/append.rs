//! `POST /log`: any text is one entry; `application/x-ndjson` and `application/json` are batches.
//!
//! `Hub-Source: NAME/ID` names the sender, `traceparent` the trace, `?level=` how grave it is, and what comes with
//! the same `Idempotency-Key` again is not stored again. The reply tells the numbers of the entries.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header, request::Parts};
use axum::response::{IntoResponse, Response};
use hubspoke_protocol::HUB_SOURCE;
use jiff::Timestamp;
use serde::Serialize;

use super::App;
use super::body::Room;
use crate::entry::{Level, UnknownLevel};
use crate::error::ApiError;
use crate::ingest::decode::Encoding;
use crate::ingest::item::MAX_KEY;
use crate::ingest::{self, Failures, Kind, Parsed, Sender};
use crate::query::QueryError;
use crate::store::Receipt;

/// Header that makes a batch count once.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const MAX_SOURCE: usize = 200;
/// Bodies from this length on are read on a thread of their own, so that they hold up no other request.
const LARGE: usize = 256 << 10;

/// The reply: how many entries are stored, and where.
#[derive(Debug, Default, Serialize)]
struct Accepted {
    accepted: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seq: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
    #[serde(flatten)]
    failures: Failures,
}

pub(super) async fn append(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let sender = sender(&parts)?;
    let kind = Kind::of(text(&parts.headers, header::CONTENT_TYPE.as_str())?);
    let encoding = Encoding::of(text(&parts.headers, header::CONTENT_ENCODING.as_str())?)?;
    let limit = if kind == Kind::Text { app.bounds.max_entry } else { app.max_batch };
    let packed_limit = if encoding.is_some() { app.max_batch } else { limit };
    let (body, mut room) = app.bodies.read(&parts, body, packed_limit).await?;
    let large = body.len() >= LARGE || encoding.is_some();
    let bounds = app.bounds;
    let parse = move || -> Result<(Parsed, Room), ApiError> {
        let take = |bytes| room.take(bytes).is_ok();
        let unpacked = encoding.map(|encoding| encoding.decode(&body, limit, take)).transpose()?;
        let parsed = ingest::parse(kind, &sender, unpacked.as_deref().unwrap_or(&body), bounds)?;
        Ok((parsed, room))
    };
    let (Parsed { batch, refused }, room) = if large { off_thread(parse).await? } else { parse()? };
    let accepted = batch.len();
    let pending = app.store.append(batch, Timestamp::now())?;
    // From here on it counts in the store's queue.
    drop(room);
    Ok(reply(accepted, pending.await?, refused))
}

/// Does `work` on a thread where it may take its time.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a task of the log service died");
        Err(ApiError::Internal)
    })
}

fn reply(accepted: usize, receipt: Option<Receipt>, failures: Failures) -> Response {
    let accepted = Accepted {
        accepted,
        first_seq: receipt.map(|receipt| receipt.first),
        last_seq: receipt.map(|receipt| receipt.last),
        duplicate: receipt.is_some_and(|receipt| receipt.duplicate),
        failures,
    };
    // Numbers and texts can't fail to serialize.
    let mut body = serde_json::to_vec(&accepted).unwrap_or_default();
    body.push(b'\n');
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Who sends, by the request's head.
pub(super) fn sender(parts: &Parts) -> Result<Sender, ApiError> {
    let headers = &parts.headers;
    let (source, source_id) = match text(headers, HUB_SOURCE)? {
        Some(source) if source.len() > MAX_SOURCE => {
            return Err(ApiError::Header("Hub-Source", format!("longer than {MAX_SOURCE} bytes")));
        }
        Some(source) => match source.split_once('/') {
            Some((name, id)) => (some(name), some(id)),
            None => (some(source), None),
        },
        None => (None, None),
    };
    let key = text(headers, IDEMPOTENCY_KEY)?;
    if key.is_some_and(|key| key.is_empty() || key.len() > MAX_KEY) {
        return Err(ApiError::Header("Idempotency-Key", format!("1 to {MAX_KEY} bytes")));
    }
    // A broken trace parent is to be ignored, says the standard.
    let trace_id =
        headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(ingest::trace_id);
    Ok(Sender {
        source,
        source_id,
        trace_id: trace_id.map(str::to_owned),
        level: parts.uri.query().map(level).transpose()?.flatten(),
        key: key.map(str::to_owned),
    })
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn level(query: &str) -> Result<Option<Level>, ApiError> {
    let mut level = None;
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        let wrong = |why: String| QueryError { key: key.chars().take(40).collect(), why };
        if key != "level" {
            return Err(wrong("no parameter here; level is".to_owned()).into());
        }
        level = Some(value.parse().map_err(|error: UnknownLevel| wrong(error.to_string()))?);
    }
    Ok(level)
}

pub(super) fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, ApiError> {
    let value = headers.get(name).map(|value| value.to_str());
    value.transpose().map_err(|_| ApiError::Header(name, "not visible ASCII".to_owned()))
}
