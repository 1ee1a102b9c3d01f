//! What went wrong, as replies. Errors elsewhere in this package know no HTTP; their statuses are given here.

use axum::response::{IntoResponse, Response};
use hubspoke_chassis::{Problem, ProblemType};

use crate::ingest::IngestError;
use crate::ingest::decode::DecodeError;
use crate::query::QueryError;
use crate::store::AppendError;

/// Seconds after which a full queue has usually drained.
const QUEUE_AGAIN: u32 = 1;
/// Seconds after which a disk may have been mended.
const DISK_AGAIN: u32 = 10;

/// Why a request for entries to be stored failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("{0}: {1}")]
    Header(&'static str, String),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("only application/x-protobuf is understood here")]
    NotProtobuf,
    #[error("the body is longer than {limit} bytes")]
    BodyTooLong { limit: usize },
    #[error("the body broke off or took too long")]
    BodyBroken,
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("too many at a time; come back later")]
    Busy,
    #[error("an internal error; it has been logged")]
    Internal,
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        let cause = match &error {
            ApiError::Header(..) => ProblemType::InvalidHeader,
            ApiError::Query(_) => ProblemType::InvalidQuery,
            ApiError::NotProtobuf => ProblemType::UnsupportedMediaType,
            ApiError::BodyTooLong { .. } => ProblemType::BodyTooLarge,
            ApiError::BodyBroken => ProblemType::BadBody,
            ApiError::Decode(error) => match error {
                DecodeError::Unknown(_) => ProblemType::UnsupportedEncoding,
                DecodeError::Broken(_) => ProblemType::BadBody,
                DecodeError::TooLarge { .. } => ProblemType::BodyTooLarge,
                DecodeError::NoRoom => ProblemType::Overloaded,
            },
            ApiError::Ingest(error) => match error {
                IngestError::Empty => ProblemType::EmptyEntry,
                IngestError::TooLong { .. } => ProblemType::EntryTooLong,
                IngestError::TooMany { .. } => ProblemType::TooManyEntries,
                IngestError::Json(_) => ProblemType::InvalidJson,
                IngestError::Otlp(_) => ProblemType::InvalidOtlp,
                IngestError::Nothing(_) => ProblemType::NoValidEntry,
            },
            ApiError::Append(error) => match error {
                AppendError::QueueFull => ProblemType::Overloaded,
                AppendError::DiskFull => ProblemType::DiskFull,
                AppendError::Disk => ProblemType::DiskFailed,
                AppendError::Closed => ProblemType::Stopping,
            },
            ApiError::Busy => ProblemType::Overloaded,
            ApiError::Internal => ProblemType::InternalError,
        };
        let problem = Self::new(cause, error.to_string());
        match error {
            ApiError::Append(AppendError::DiskFull | AppendError::Disk) => problem.retry_after(DISK_AGAIN),
            ApiError::Append(_) | ApiError::Busy | ApiError::Decode(DecodeError::NoRoom) => {
                problem.retry_after(QUEUE_AGAIN)
            }
            ApiError::Ingest(IngestError::Nothing(refused)) => {
                let named = serde_json::to_value(refused.named).unwrap_or_default();
                problem.with("failed", named).with("failed_count", refused.count)
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
