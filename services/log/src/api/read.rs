//! `GET /log`: entries of this instance as NDJSON, streamed as they are found.

use std::sync::Arc;

use super::app::LogApp;
use super::request::admit;
use super::stream::{NDJSON, body, last_line, query_files};
use crate::error::ApiError;
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use hubspoke_chassis::server::ConnectionHandle;

pub(super) async fn read(
    State(app): State<Arc<LogApp>>,
    connection: Option<Extension<ConnectionHandle>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    app.require_reader(&headers, connection.as_deref()).await?;
    let (query, admitted) = admit(&app, query.as_deref().unwrap_or("")).await?;
    let found = query_files(&app, admitted, query).begin().await?;
    Ok(([NDJSON], body(found.chunks(), last_line)).into_response())
}
