//! Why an entry was not stored.

use std::error::Error;
use std::sync::Arc;

use reqwest::StatusCode;

use crate::http::{SendError, status_line};

/// Why no log instance stored an entry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// No log instance is known, or all that were tried failed.
    #[error("no log instance stored the entry ({attempts} tried)")]
    NoInstance {
        /// How many were tried.
        attempts: usize,
        /// Why the last one failed.
        #[source]
        last: Option<AttemptError>,
    },
    /// Some instances stored the entry, but fewer than there should be copies.
    #[error("{stored} of {wanted} log instances stored the entry")]
    FewerCopies {
        /// How many stored it.
        stored: usize,
        /// How many there should be: [`LogCopies::count`](super::LogCopies::count).
        wanted: usize,
        /// Why the last one that was tried did not; `None` if there was none.
        #[source]
        last: Option<AttemptError>,
    },
    /// The entry itself is at fault, being empty or too long; no other instance would store it.
    #[error("the log service refused the entry with {}", status_line(*status))]
    Refused {
        /// The status of the response.
        status: u16,
    },
}

/// Why one log instance did not store an entry.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AttemptError {
    /// No connection could be made.
    #[error("can't connect")]
    Unreachable(#[source] Arc<dyn Error + Send + Sync>),
    /// The connection broke before there was an answer.
    #[error("no answer")]
    NoAnswer(#[source] Arc<dyn Error + Send + Sync>),
    /// It did not answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// It is overloaded, its disk is full, or it fails otherwise.
    #[error("answered {}", status_line(*.0))]
    Status(u16),
}

impl From<SendError> for AttemptError {
    fn from(error: SendError) -> Self {
        if error.is_connect() { Self::Unreachable(Arc::new(error)) } else { Self::NoAnswer(Arc::new(error)) }
    }
}

/// Whether the status means that the entry is at fault, so that no other instance would store it either. Anything
/// else is worth another instance, even a 404: a stranger may have got the port of an instance that is gone.
pub(super) fn entry_at_fault(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY
    )
}
