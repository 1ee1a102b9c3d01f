//! `GET /log`: entries of this instance as NDJSON, streamed as they are found.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::app::LogApp;
use super::stream::{NDJSON, body, query_files};
use crate::error::ApiError;
use crate::query::Query;

pub(super) async fn read(
    State(app): State<Arc<LogApp>>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = Query::parse(query.as_deref().unwrap_or(""), Timestamp::now())?;
    Ok(([NDJSON], body(query_files(&app, query)?)).into_response())
}
