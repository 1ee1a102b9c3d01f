//! Reads what all requests have: the head of one that stores entries, the query string of one that reads them.

use std::sync::Arc;

use std::borrow::Cow;

use axum::http::HeaderMap;
use axum::http::request::Parts;
use hubspoke_chassis::site::check_same_site;
use hubspoke_client::Directory;
use hubspoke_protocol::HUB_SOURCE;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::admission::AdmittedQuery;
use super::app::LogApp;
use super::sender::client_of;
use crate::entry::UnknownLevel;
use crate::error::ApiError;
use crate::ingest::traceparent::{is_trace_id, trace_id};
use crate::ingest::{MAX_KEY, MAX_NAME, RequestMeta};
use crate::query::{Query, QueryError};

/// A batch with a key is stored once.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Reads sender, trace, level and key from a request's head.
pub(super) fn request_meta(parts: &Parts, directory: &Directory) -> Result<RequestMeta, ApiError> {
    // Also through the gateway, which lets pages of other sites through.
    check_same_site(parts)?;
    let headers = &parts.headers;
    // The gateway removes the header from requests that come from outside.
    let source = text(headers, HUB_SOURCE)?.unwrap_or_default();
    if source.len() > MAX_NAME {
        let reason = format!("longer than {MAX_NAME} bytes");
        return Err(ApiError::Header { name: "Hub-Source", reason });
    }
    let (name, id) = source.split_once('/').unwrap_or((source, ""));
    let key = text(headers, IDEMPOTENCY_KEY)?;
    if key.is_some_and(|key| !is_key(key)) {
        let reason = format!("must be 1 to {MAX_KEY} bytes");
        return Err(ApiError::Header { name: "Idempotency-Key", reason });
    }
    let trace_id = headers.get("traceparent").and_then(|value| trace_id(value.to_str().ok()?));
    let mut meta = RequestMeta {
        arrival: Timestamp::now(),
        source: non_empty(name),
        source_id: non_empty(id).filter(|_| !name.is_empty()),
        client: if name.is_empty() { client_of(parts, directory) } else { None },
        trace_id: trace_id.map(str::to_owned),
        key: key.map(str::to_owned),
        ..RequestMeta::default()
    };
    read_parameters(parts.uri.query().unwrap_or_default(), &mut meta)?;
    Ok(meta)
}

/// Reads the parameters, which say for all entries of a request what a JSON object may say for itself.
fn read_parameters(query: &str, meta: &mut RequestMeta) -> Result<(), QueryError> {
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let invalid = |reason: String| QueryError::new(&name, reason);
        let given = |valid: bool, rule: &str| {
            if valid { Ok(Some(Cow::into_owned(value.clone()))) } else { Err(invalid(rule.to_owned())) }
        };
        match &*name {
            "level" => {
                let level = value.parse();
                meta.level = Some(level.map_err(|error: UnknownLevel| invalid(error.to_string()))?);
            }
            "source" => {
                let rule = format!("must be 1 to {MAX_NAME} bytes");
                meta.claimed = given((1..=MAX_NAME).contains(&value.len()), &rule)?;
            }
            "trace_id" => {
                let rule = "must be 32 lower-case hexadecimal digits, not all zero";
                meta.trace_id = given(is_trace_id(&value), rule)?;
            }
            "key" if meta.key.as_ref().is_some_and(|key| **key != *value) => {
                return Err(invalid("the request has another Idempotency-Key".to_owned()));
            }
            "key" => meta.key = given(is_key(&value), &format!("must be 1 to {MAX_KEY} bytes"))?,
            _ => {
                let known = "level, source, trace_id and key";
                return Err(invalid(format!("unknown parameter; the known ones are {known}")));
            }
        }
    }
    Ok(())
}

fn is_key(text: &str) -> bool {
    (1..=MAX_KEY).contains(&text.len())
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// The text of a header.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, ApiError> {
    let value = headers.get(name).map(|value| value.to_str());
    value.transpose().map_err(|_| ApiError::Header { name, reason: "not visible ASCII".to_owned() })
}

/// Parses and admits a query that reads files. A pattern is compiled on another thread.
pub(super) async fn admit(app: &LogApp, query: &str) -> Result<(Query, Arc<AdmittedQuery>), ApiError> {
    let pattern = Query::asks_for_pattern(query);
    if !pattern {
        // An invalid query is refused whether there is a place for it or not.
        let query = Query::parse(query, Timestamp::now())?;
        return Ok((query, app.queries.admit(false).ok_or(ApiError::Busy)?));
    }
    let admitted = app.queries.admit(true).ok_or(ApiError::Busy)?;
    Ok((parse_query(app, query).await?, admitted))
}

/// Parses a query. A pattern is compiled on another thread.
pub(super) async fn parse_query(app: &LogApp, query: &str) -> Result<Query, ApiError> {
    if !Query::asks_for_pattern(query) {
        return Ok(Query::parse(query, Timestamp::now())?);
    }
    let query = query.to_owned();
    off_thread(&app.pattern_turns, move || Ok(Query::parse(&query, Timestamp::now())?)).await
}

/// Runs long work on a thread for blocking tasks, once it gets one of the permits of `turns`.
pub(super) async fn off_thread<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let turn = Arc::clone(turns).acquire_owned().await.map_err(|_| ApiError::Internal)?;
    let work = move || {
        let _turn = turn;
        work()
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "a task that parses a request panicked");
        Err(ApiError::Internal)
    })
}
