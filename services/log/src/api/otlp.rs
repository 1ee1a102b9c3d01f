//! `POST /v1/logs`: what OpenTelemetry SDKs and collectors send (OTLP/HTTP, protobuf, with or without gzip).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hubspoke_chassis::Problem;
use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use prost::Message as _;

use super::App;
use super::append::{off_thread, sender, text};
use crate::error::ApiError;
use crate::ingest::decode::Encoding;
use crate::ingest::otlp::parse;
use crate::store::AppendError;

const PROTOBUF: &str = "application/x-protobuf";

pub(super) async fn export(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    export_records(&app, request).await.map_err(|error| match error {
        // Exporters try again after 503, but not after 507.
        ApiError::Append(AppendError::DiskFull) => {
            Problem::from(error).with_status(StatusCode::SERVICE_UNAVAILABLE)
        }
        other => other.into(),
    })
}

async fn export_records(app: &App, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let kind = text(&parts.headers, header::CONTENT_TYPE.as_str())?.unwrap_or("");
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(PROTOBUF)) {
        return Err(ApiError::NotProtobuf);
    }
    let encoding = Encoding::of(text(&parts.headers, header::CONTENT_ENCODING.as_str())?)?;
    let key = sender(&parts)?.key;
    let (limit, bounds) = (app.max_batch, app.bounds);
    let (body, mut room) = app.bodies.read(&parts, body, limit).await?;
    let (parsed, room) = off_thread(move || {
        let take = |bytes| room.take(bytes).is_ok();
        let unpacked = encoding.map(|encoding| encoding.decode(&body, limit, take)).transpose()?;
        Ok((parse(unpacked.as_deref().unwrap_or(&body), key, bounds)?, room))
    })
    .await?;
    if !parsed.batch.is_empty() {
        let pending = app.store.append(parsed.batch, Timestamp::now())?;
        drop(room);
        pending.await?;
    }
    let partial_success = parsed.refused.named.first().map(|first| ExportLogsPartialSuccess {
        rejected_log_records: i64::try_from(parsed.refused.count).unwrap_or(i64::MAX),
        error_message: first.detail.clone(),
    });
    let reply = ExportLogsServiceResponse { partial_success }.encode_to_vec();
    Ok(([(header::CONTENT_TYPE, PROTOBUF)], reply).into_response())
}
