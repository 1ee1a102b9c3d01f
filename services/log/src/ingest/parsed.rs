//! The result of parsing a body.

use serde::Serialize;

use crate::entry::Batch;

/// Maximum number of rejected entries that a reply lists; it counts all of them.
pub(super) const MAX_LISTED: usize = 100;

/// Longest idempotency key, in bytes.
pub(crate) const MAX_KEY: usize = 255;
/// Longest name or id of a sender, in bytes.
pub(crate) const MAX_NAME: usize = 200;

/// Limits on the content of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IngestLimits {
    /// Longest text of one entry, in bytes.
    pub(crate) max_entry: usize,
    /// Entries per batch, including rejected ones.
    pub(crate) max_entries: usize,
    /// Bytes that the entries of an export may take encoded. What its records share is repeated in each of them.
    pub(crate) max_encoded: usize,
}

/// Why a whole body is refused. A retry does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IngestError {
    #[error("the entry is empty")]
    Empty,
    #[error("the entry is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("the batch has more than {limit} {what}")]
    TooMany { limit: usize, what: &'static str },
    #[error("invalid JSON: {0}")]
    Json(String),
    #[error("invalid OTLP log export: {0}")]
    Otlp(String),
    #[error("none of the {} entries is valid", .0.count)]
    NoneAccepted(RejectedEntries),
}

/// A parsed body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParsedBody {
    pub(crate) batch: Batch,
    pub(crate) rejected: RejectedEntries,
}

impl ParsedBody {
    /// An error if there is nothing to store.
    pub(super) fn require_entries(self) -> Result<Self, IngestError> {
        match (self.batch.is_empty(), self.rejected.count == 0) {
            (true, true) => Err(IngestError::Empty),
            (true, false) => Err(IngestError::NoneAccepted(self.rejected)),
            (false, _) => Ok(self),
        }
    }
}

/// The rejected entries of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RejectedEntries {
    /// The first ones.
    #[serde(rename = "failed", skip_serializing_if = "Vec::is_empty")]
    pub(crate) listed: Vec<RejectedEntry>,
    /// All of them.
    #[serde(rename = "failed_count", skip_serializing_if = "is_zero")]
    pub(crate) count: usize,
}

impl RejectedEntries {
    pub(crate) fn push(&mut self, line: usize, status: u16, detail: String) {
        self.count += 1;
        if self.listed.len() < MAX_LISTED {
            self.listed.push(RejectedEntry { line, status, detail });
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A rejected entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RejectedEntry {
    /// Line of the body or position in the list, from 1.
    pub(crate) line: usize,
    /// The status that the entry would have got alone.
    pub(crate) status: u16,
    pub(crate) detail: String,
}
