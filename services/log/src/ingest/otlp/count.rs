//! How much an export request would become, found by walking its encoding.
//!
//! Decoded, each message takes some hundred bytes, and an empty one takes two encoded. So what decides is the number
//! of messages; texts and bytes are never longer than they were.

use super::IngestError;

/// Messages for each record that is allowed: attributes are two each, their value included.
const PER_RECORD: usize = 64;
/// How deep messages may nest: what the decoder allows.
const DEPTH: usize = 100;

/// The messages of an export request, as far as they hold others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Request,
    ResourceLogs,
    Resource,
    Entity,
    ScopeLogs,
    Scope,
    Record,
    Pair,
    Value,
    List,
    Pairs,
    /// One of many, which takes room although it holds nothing.
    Text,
}

impl Message {
    /// What field `number` holds, by opentelemetry-proto 1.x; `None` where it is a single text or not known.
    fn field(self, number: u64) -> Option<Self> {
        Some(match (self, number) {
            (Self::Request, 1) => Self::ResourceLogs,
            (Self::ResourceLogs, 1) => Self::Resource,
            (Self::ResourceLogs, 2) => Self::ScopeLogs,
            (Self::Resource, 1) | (Self::Scope, 3) | (Self::Record, 6) | (Self::Pairs, 1) => Self::Pair,
            (Self::Resource, 3) => Self::Entity,
            (Self::Entity, 3 | 4) => Self::Text,
            (Self::ScopeLogs, 1) => Self::Scope,
            (Self::ScopeLogs, 2) => Self::Record,
            (Self::Record, 5) | (Self::Pair, 2) | (Self::List, 1) => Self::Value,
            (Self::Value, 5) => Self::List,
            (Self::Value, 6) => Self::Pairs,
            _ => return None,
        })
    }
}

/// Refuses a request of more than `max` records, or one that would take far more than so many do.
pub(super) fn check(body: &[u8], max: usize) -> Result<(), IngestError> {
    let mut count = Count { records: 0, messages: 0, max };
    count.walk(Message::Request, body, 0)
}

struct Count {
    records: usize,
    messages: usize,
    max: usize,
}

impl Count {
    fn walk(&mut self, message: Message, mut bytes: &[u8], depth: usize) -> Result<(), IngestError> {
        while !bytes.is_empty() {
            let Some((number, inner)) = field(&mut bytes) else {
                return Err(IngestError::Otlp("it is not Protocol Buffers, or cut off".to_owned()));
            };
            let Some(kind) = message.field(number).filter(|_| inner.is_some()) else { continue };
            self.messages += 1;
            self.records += usize::from(kind == Message::Record);
            if self.records > self.max {
                return Err(IngestError::TooMany { limit: self.max, what: "entries" });
            }
            let limit = self.max.saturating_mul(PER_RECORD);
            if self.messages > limit {
                return Err(IngestError::TooMany { limit, what: "values" });
            }
            if depth == DEPTH {
                return Err(IngestError::Otlp("its values are too deep".to_owned()));
            }
            if kind != Message::Text {
                self.walk(kind, inner.unwrap_or_default(), depth + 1)?;
            }
        }
        Ok(())
    }
}

/// The next field's number, and its bytes where it has a length.
fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Option<&'a [u8]>)> {
    let key = varint(bytes)?;
    let number = key >> 3;
    match key & 7 {
        0 => varint(bytes).map(|_| (number, None)),
        1 => bytes.split_off(..8).map(|_| (number, None)),
        2 => {
            let len = usize::try_from(varint(bytes)?).ok()?;
            bytes.split_off(..len).map(|inner| (number, Some(inner)))
        }
        5 => bytes.split_off(..4).map(|_| (number, None)),
        // Groups, which nobody has written for many years.
        _ => None,
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
