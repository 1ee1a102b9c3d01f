//! Converts errors to problem documents. The other modules' errors know no HTTP.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use hubspoke_chassis::rights::Denied;
use hubspoke_chassis::site::SiteError;
use hubspoke_chassis::{Problem, ProblemType};

use crate::ingest::IngestError;
use crate::ingest::decode::DecodeError;
use crate::query::QueryError;
use crate::store::AppendError;

/// Seconds after which a full queue has usually drained.
const QUEUE_RETRY_AFTER: u32 = 1;
/// Seconds after which an operator may have fixed a disk.
const DISK_RETRY_AFTER: u32 = 10;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error(transparent)]
    Site(#[from] SiteError),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("{name}: {reason}")]
    Header { name: &'static str, reason: String },
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("the content type must be application/x-protobuf")]
    NotProtobuf,
    #[error("the body is longer than {limit} bytes")]
    BodyTooLong { limit: usize },
    #[error("the body was incomplete or took too long")]
    BodyBroken,
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("too many requests in progress; retry later")]
    Busy,
    #[error(
        "the query searched for {limit:?}, which is the limit (max_query_time); narrow it down, by since or until"
    )]
    QueryTime { limit: Duration },
    #[error("the query gave up its place, since others were waiting; retry later")]
    Displaced,
    #[error("the reader accepted nothing for too long")]
    Stalled,
    #[error("an internal error; see the log service's own log")]
    Internal,
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        let cause = match &error {
            ApiError::Denied(denied) => return denied.clone().into(),
            ApiError::Site(error) => error.problem_type(),
            ApiError::Header { .. } => ProblemType::InvalidHeader,
            ApiError::Query(_) => ProblemType::InvalidQuery,
            ApiError::NotProtobuf => ProblemType::UnsupportedMediaType,
            ApiError::BodyTooLong { .. } => ProblemType::BodyTooLarge,
            ApiError::BodyBroken => ProblemType::BadBody,
            ApiError::Decode(error) => match error {
                DecodeError::Unsupported(_) => ProblemType::UnsupportedEncoding,
                DecodeError::Corrupt(_) => ProblemType::BadBody,
                DecodeError::TooLarge { .. } => ProblemType::BodyTooLarge,
                DecodeError::NoRoom => ProblemType::Overloaded,
            },
            ApiError::Ingest(error) => match error {
                IngestError::Empty => ProblemType::EmptyEntry,
                IngestError::TooLong { .. } => ProblemType::EntryTooLong,
                IngestError::TooMany { .. } => ProblemType::TooManyEntries,
                IngestError::Json(_) => ProblemType::InvalidJson,
                IngestError::Otlp(_) => ProblemType::InvalidOtlp,
                IngestError::NoneAccepted(_) => ProblemType::NoValidEntry,
            },
            ApiError::Append(error) => match error {
                AppendError::KeyReused => ProblemType::KeyReused,
                AppendError::QueueFull => ProblemType::Overloaded,
                AppendError::DiskFull => ProblemType::DiskFull,
                AppendError::Disk => ProblemType::DiskFailed,
                AppendError::Closed => ProblemType::Stopping,
            },
            ApiError::QueryTime { .. } => ProblemType::QueryTimeout,
            ApiError::Stalled => ProblemType::RequestTimeout,
            ApiError::Busy | ApiError::Displaced => ProblemType::Overloaded,
            ApiError::Internal => ProblemType::InternalError,
        };
        let problem = Self::new(cause, error.to_string());
        match error {
            ApiError::Append(AppendError::DiskFull | AppendError::Disk) => {
                problem.retry_after(DISK_RETRY_AFTER)
            }
            ApiError::Append(AppendError::QueueFull | AppendError::Closed)
            | ApiError::Busy
            | ApiError::Displaced
            | ApiError::Decode(DecodeError::NoRoom) => problem.retry_after(QUEUE_RETRY_AFTER),
            ApiError::Ingest(IngestError::NoneAccepted(rejected)) => {
                let listed = serde_json::to_value(rejected.listed).unwrap_or_default();
                problem.with("failed", listed).with("failed_count", rejected.count)
            }
            _ => problem,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}
