//! From a request's body to a batch of entries. Pure.
//!
//! Three kinds of body: text (one entry, exactly as sent), lines of JSON, and a JSON value or list of values. What
//! a JSON value becomes is in [`item`]. In a batch, lines that can't be taken are reported one by one and the
//! others are stored; a batch of which nothing can be taken is refused as a whole.
//!
//! What a body becomes is bounded by [`Bounds`], and counted while it is read: two bytes can be an entry, which takes
//! a hundred in memory.

use serde::Serialize;

use crate::entry::{Batch, Level, Origin};

pub(crate) mod decode;
pub(crate) mod item;
pub(crate) mod otlp;

/// Failed entries that a reply names; of those after them it tells the number only.
const NAMED: usize = 100;

/// What a body may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Longest text of one entry, in bytes.
    pub(crate) max_entry: usize,
    /// Entries of one batch, those that can't be taken included.
    pub(crate) max_entries: usize,
}

/// How a body is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One entry.
    Text,
    /// One JSON value per line.
    Lines,
    /// One JSON value, or a list of them.
    Json,
}

impl Kind {
    /// By content type. Whatever is not known to be a batch is text: senders label text in many ways.
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

/// Why a request's entries can't be taken. Sending them again does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IngestError {
    #[error("the entry is empty")]
    Empty,
    #[error("the entry is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("the batch has more than {limit} {what}")]
    TooMany { limit: usize, what: &'static str },
    #[error("the body is no JSON: {0}")]
    Json(String),
    #[error("the body is no OTLP log export: {0}")]
    Otlp(String),
    #[error("none of the {} entries can be taken", .0.count)]
    Nothing(Failures),
}

/// Entries of a batch that can't be taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Failures {
    /// The first ones.
    #[serde(rename = "failed", skip_serializing_if = "Vec::is_empty")]
    pub(crate) named: Vec<Refused>,
    /// How many there are.
    #[serde(rename = "failed_count", skip_serializing_if = "Failures::none")]
    pub(crate) count: usize,
}

impl Failures {
    pub(crate) fn push(&mut self, line: usize, status: u16, detail: String) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(Refused { line, status, detail });
        }
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde gives it")]
    fn none(count: &usize) -> bool {
        *count == 0
    }
}

/// An entry of a batch that can't be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Refused {
    /// Line of the body, or place in the list, from 1.
    pub(crate) line: usize,
    /// The status that the entry alone would have got.
    pub(crate) status: u16,
    pub(crate) detail: String,
}

/// What a request's body holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) batch: Batch,
    pub(crate) refused: Failures,
}

/// Facts of a request, owned, so that large bodies can be read on another thread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) source: Option<String>,
    pub(crate) source_id: Option<String>,
    pub(crate) trace_id: Option<String>,
    pub(crate) level: Option<Level>,
    pub(crate) key: Option<String>,
}

impl Sender {
    fn origin(&self) -> Origin<'_> {
        Origin {
            source: self.source.as_deref(),
            source_id: self.source_id.as_deref(),
            trace_id: self.trace_id.as_deref(),
            level: self.level,
            // The request's own key is the batch's.
            key: None,
        }
    }
}

/// Reads a body.
pub(crate) fn parse(kind: Kind, sender: &Sender, body: &[u8], bounds: Bounds) -> Result<Parsed, IngestError> {
    let origin = sender.origin();
    match kind {
        Kind::Text if body.is_empty() => Err(IngestError::Empty),
        Kind::Text if body.len() > bounds.max_entry => Err(IngestError::TooLong { limit: bounds.max_entry }),
        Kind::Text => {
            Ok(Parsed { batch: Batch::one(&origin, body, sender.key.clone()), refused: Failures::default() })
        }
        Kind::Lines => {
            let mut reader = item::Reader::new(&origin, sender.key.clone(), bounds);
            for (line, value) in (1..).zip(body.split(|b| *b == b'\n')) {
                if !value.trim_ascii().is_empty() {
                    reader.line(line, value.trim_ascii())?;
                }
            }
            finish(reader)
        }
        Kind::Json => {
            let mut reader = item::Reader::new(&origin, sender.key.clone(), bounds);
            reader.document(body)?;
            finish(reader)
        }
    }
}

fn finish(reader: item::Reader<'_>) -> Result<Parsed, IngestError> {
    let parsed = reader.finish();
    match (parsed.batch.is_empty(), parsed.refused.count == 0) {
        (true, true) => Err(IngestError::Empty),
        (true, false) => Err(IngestError::Nothing(parsed.refused)),
        (false, _) => Ok(parsed),
    }
}

/// The trace id of a W3C `traceparent` header; nothing for one that is not valid, as the standard asks.
pub(crate) fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex =
        |text: &str, len| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let known = hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    (known && is_trace_id(trace) && hex(parent, 16) && hex(flags, 2)).then_some(trace)
}

/// 32 lower-case hexadecimal digits, not all zero.
pub(crate) fn is_trace_id(text: &str) -> bool {
    text.len() == 32
        && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && text.bytes().any(|b| b != b'0')
}

#[cfg(test)]
mod tests;
