//! Failed visits as replies.

use axum::response::{IntoResponse, Response};
use hubspoke_chassis::{Problem, ProblemType};
use hubspoke_client::log::LogError;

use crate::counter::CountError;

/// Seconds until a retry makes sense.
const RETRY_AFTER: u32 = 1;

/// Why a visit failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VisitError {
    /// It has a number, which is not used again, but no log entry.
    #[error("the visit could not be logged")]
    Log(#[from] LogError),
    /// It has no number.
    #[error("the visit could not be counted")]
    Count(#[from] CountError),
}

impl IntoResponse for VisitError {
    fn into_response(self) -> Response {
        // Of the shared count, the cause is logged once, not for each visit.
        if !matches!(self, Self::Count(CountError::Shared(_))) {
            tracing::warn!(error = &self as &dyn std::error::Error, "a visit failed");
        }
        let cause = match self {
            Self::Log(_) => ProblemType::NotLogged,
            Self::Count(_) => ProblemType::NotCounted,
        };
        Problem::new(cause, self.to_string()).retry_after(RETRY_AFTER).into_response()
    }
}
