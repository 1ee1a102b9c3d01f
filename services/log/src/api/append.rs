//! `POST /log`: any text is one entry; `application/x-ndjson` and `application/json` are batches.
//!
//! `Hub-Source: NAME/ID` names the sender and `traceparent` the trace; parameters say what JSON can say too
//! ([`super::request`]). A request that repeats an earlier one of the same sender, by its `Idempotency-Key`, is not
//! stored again; one that has only the key in common with it is refused. The reply has the sequence numbers of the
//! entries.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;

use super::app::LogApp;
use super::body::BodyMemory;
use super::request::{off_thread, request_meta, text};
use crate::error::ApiError;
use crate::ingest::decode::ContentEncoding;
use crate::ingest::{self, BodyKind, ParsedBody, RejectedEntries};
use crate::store::Receipt;

/// Bodies of at least this size are parsed on another thread, so that they don't hold up other requests.
const LARGE: usize = 256 << 10;

/// The reply: how many entries are stored, and where.
#[derive(Debug, Default, Serialize)]
struct AppendReply {
    accepted: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seq: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
    #[serde(flatten)]
    rejected: RejectedEntries,
}

pub(super) async fn append(State(app): State<Arc<LogApp>>, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let meta = request_meta(&parts, &app.directory)?;
    app.require_writer(&parts, meta.source.as_deref()).await?;
    let kind = BodyKind::of(text(&parts.headers, header::CONTENT_TYPE.as_str())?);
    let encoding = ContentEncoding::of(text(&parts.headers, header::CONTENT_ENCODING.as_str())?)?;
    let limit = if kind == BodyKind::Text { app.limits.max_entry } else { app.max_batch };
    let encoded_limit = if encoding.is_some() { app.max_batch } else { limit };
    let (body, mut memory) = app.bodies.read(&parts, body, encoded_limit).await?;
    let large = body.len() >= LARGE || encoding.is_some();
    let limits = app.limits;
    let parse = move || -> Result<(ParsedBody, BodyMemory), ApiError> {
        let reserve = |bytes| memory.reserve(bytes).is_ok();
        let decoded = encoding.map(|encoding| encoding.decode(&body, limit, reserve)).transpose()?;
        let parsed = ingest::parse(kind, &meta, decoded.as_deref().unwrap_or(&body), limits)?;
        Ok((parsed, memory))
    };
    let (ParsedBody { batch, rejected }, memory) =
        if large { off_thread(&app.parsers, parse).await? } else { parse()? };
    let accepted = batch.len();
    let pending = app.store.append(batch, Timestamp::now)?;
    // From here on the entries count in the store's queue.
    drop(memory);
    Ok(reply(accepted, pending.await?, rejected))
}

fn reply(accepted: usize, receipt: Option<Receipt>, rejected: RejectedEntries) -> Response {
    let reply = AppendReply {
        accepted,
        first_seq: receipt.map(|receipt| receipt.first),
        last_seq: receipt.map(|receipt| receipt.last),
        duplicate: receipt.is_some_and(|receipt| receipt.duplicate),
        rejected,
    };
    // Serializing numbers and strings does not fail.
    let mut body = serde_json::to_vec(&reply).unwrap_or_default();
    body.push(b'\n');
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
