//! From a request's body to a batch of entries. Pure.
//!
//! There are three kinds of body: text (one entry, exactly as sent), lines of JSON, and one JSON value or
//! list of values. [`json`] defines what a JSON value becomes. In a batch, invalid entries are reported one
//! by one and the others are stored; a batch without any valid entry is refused.
//!
//! The request says who the sender is. What a body says about that is stored as a claim.
//!
//! [`IngestLimits`] bounds what a body becomes. Entries are counted while the body is read: two bytes can be
//! an entry, which takes a hundred bytes in memory.

use jiff::Timestamp;

use crate::entry::{Batch, EntryMeta, Level};

pub(crate) use self::parsed::{IngestError, IngestLimits, MAX_KEY, MAX_NAME, ParsedBody, RejectedEntries};

pub(crate) mod decode;
pub(crate) mod json;
mod level;
pub(crate) mod otlp;
mod parsed;
mod time;
pub(crate) mod traceparent;

/// How to read a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyKind {
    /// One entry.
    Text,
    /// One JSON value per line.
    Lines,
    /// One JSON value, or a list of them.
    Json,
}

impl BodyKind {
    /// From the content type. Anything that is not known to be a batch is text: senders label text in many
    /// ways.
    pub(crate) fn of(content_type: Option<&str>) -> Self {
        let kind = content_type.and_then(|kind| kind.split(';').next()).unwrap_or("").trim();
        let is = |names: &[&str]| names.iter().any(|name| kind.eq_ignore_ascii_case(name));
        if is(&["application/x-ndjson", "application/ndjson", "application/jsonl"]) {
            Self::Lines
        } else if is(&["application/json"]) {
            Self::Json
        } else {
            Self::Text
        }
    }
}

/// The part of a request's head that applies to all its entries. Owned, so that another thread can parse a
/// large body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RequestMeta {
    /// The sender, if it is a member: its registered name and `Id`.
    pub(crate) source: Option<String>,
    pub(crate) source_id: Option<String>,
    /// The sender's address, if it is not.
    pub(crate) client: Option<String>,
    /// The name that it gives itself.
    pub(crate) claimed: Option<String>,
    pub(crate) trace_id: Option<String>,
    pub(crate) level: Option<Level>,
    /// When the request came.
    pub(crate) arrival: Timestamp,
    /// The batch's idempotency key.
    pub(crate) key: Option<String>,
}

impl RequestMeta {
    fn entry_meta(&self) -> EntryMeta<'_> {
        EntryMeta {
            source: self.source.as_deref(),
            source_id: self.source_id.as_deref(),
            client: self.client.as_deref(),
            claimed: self.claimed.as_deref(),
            claimed_id: None,
            trace_id: self.trace_id.as_deref(),
            level: self.level,
            time: None,
            key: None,
        }
    }
}

/// Parses a body.
pub(crate) fn parse(
    kind: BodyKind,
    request: &RequestMeta,
    body: &[u8],
    limits: IngestLimits,
) -> Result<ParsedBody, IngestError> {
    let meta = request.entry_meta();
    let key = request.key.clone();
    match kind {
        BodyKind::Text if body.is_empty() => Err(IngestError::Empty),
        BodyKind::Text if body.len() > limits.max_entry => {
            Err(IngestError::TooLong { limit: limits.max_entry })
        }
        BodyKind::Text => {
            Ok(ParsedBody { batch: Batch::one(&meta, body, key), rejected: RejectedEntries::default() })
        }
        BodyKind::Lines => json::parse_lines(body, &meta, key, request.arrival, limits)?.require_entries(),
        BodyKind::Json => json::parse_document(body, &meta, key, request.arrival, limits)?.require_entries(),
    }
}

#[cfg(test)]
mod tests;
