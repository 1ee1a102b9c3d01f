//! `POST /v1/logs`: log records from OpenTelemetry SDKs and collectors (OTLP/HTTP, protobuf, with or without
//! gzip).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hubspoke_chassis::Problem;
use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use prost::Message as _;

use super::app::LogApp;
use super::request::{off_thread, request_meta, text};
use crate::error::ApiError;
use crate::ingest::decode::ContentEncoding;
use crate::ingest::otlp::{decoded_size, parse};
use crate::store::AppendError;

const PROTOBUF: &str = "application/x-protobuf";

pub(super) async fn export(State(app): State<Arc<LogApp>>, request: Request) -> Result<Response, Problem> {
    export_records(&app, request).await.map_err(|error| match error {
        // Exporters retry after 503, but not after 507.
        ApiError::Append(AppendError::DiskFull) => {
            Problem::from(error).with_status(StatusCode::SERVICE_UNAVAILABLE)
        }
        other => other.into(),
    })
}

async fn export_records(app: &LogApp, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let meta = request_meta(&parts, &app.directory)?;
    app.require_writer(&parts, meta.source.as_deref()).await?;
    let kind = text(&parts.headers, header::CONTENT_TYPE.as_str())?.unwrap_or("");
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(PROTOBUF)) {
        return Err(ApiError::NotProtobuf);
    }
    let encoding = ContentEncoding::of(text(&parts.headers, header::CONTENT_ENCODING.as_str())?)?;
    let (limit, limits) = (app.max_batch, app.limits);
    let (body, mut memory) = app.bodies.read(&parts, body, limit).await?;
    let (parsed, memory) = off_thread(&app.parsers, move || {
        let reserve = |bytes| memory.reserve(bytes).is_ok();
        let decoded = encoding.map(|encoding| encoding.decode(&body, limit, reserve)).transpose()?;
        let content = decoded.as_deref().unwrap_or(&body);
        memory.reserve(decoded_size(content, limits)?)?;
        Ok((parse(content, &meta, limits)?, memory))
    })
    .await?;
    if !parsed.batch.is_empty() {
        let pending = app.store.append(parsed.batch, Timestamp::now)?;
        drop(memory);
        pending.await?;
    }
    let partial_success = parsed.rejected.listed.first().map(|first| ExportLogsPartialSuccess {
        rejected_log_records: i64::try_from(parsed.rejected.count).unwrap_or(i64::MAX),
        error_message: first.detail.clone(),
    });
    let reply = ExportLogsServiceResponse { partial_success }.encode_to_vec();
    Ok(([(header::CONTENT_TYPE, PROTOBUF)], reply).into_response())
}
