//! Computes the decoded size of an export request by walking its encoding, and bounds its records and values.
//!
//! An empty message takes two bytes encoded and some hundred decoded, while text and bytes never grow. So the
//! messages decide.

use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::ingest::parsed::IngestError;

/// Messages per allowed record. An attribute is two, with its value.
const PER_RECORD: usize = 64;
/// How deep messages may nest; the decoder's limit.
const DEPTH: usize = 100;

/// The messages of an export request that contain others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OtlpMessage {
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
    /// A repeated string, which takes memory even if empty.
    Text,
}

impl OtlpMessage {
    /// The message in field `number` (opentelemetry-proto 1.x); `None` for a single string and for an unknown
    /// field.
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

    /// Bytes that one takes decoded. Lists grow by doubling.
    fn size(self) -> usize {
        2 * match self {
            Self::Request | Self::Text => size_of::<String>(),
            Self::ResourceLogs => size_of::<ResourceLogs>(),
            Self::Resource => size_of::<Resource>(),
            Self::Entity => size_of::<EntityRef>(),
            Self::ScopeLogs => size_of::<ScopeLogs>(),
            Self::Scope => size_of::<InstrumentationScope>(),
            Self::Record => size_of::<LogRecord>(),
            Self::Pair => size_of::<KeyValue>(),
            Self::Value => size_of::<AnyValue>(),
            Self::List => size_of::<ArrayValue>(),
            Self::Pairs => size_of::<KeyValueList>(),
        }
    }
}

/// The memory that a request takes once it is decoded, in bytes, beside its texts. Refuses one of more than `max`
/// records, or of many more messages than they need.
pub(super) fn decoded_size(body: &[u8], max: usize) -> Result<usize, IngestError> {
    let mut counter = MessageCounter { records: 0, messages: 0, bytes: 0, max };
    counter.walk(OtlpMessage::Request, body, 0)?;
    Ok(counter.bytes)
}

struct MessageCounter {
    records: usize,
    messages: usize,
    bytes: usize,
    max: usize,
}

impl MessageCounter {
    fn walk(&mut self, message: OtlpMessage, mut bytes: &[u8], depth: usize) -> Result<(), IngestError> {
        while !bytes.is_empty() {
            let Some((number, inner)) = field(&mut bytes) else {
                return Err(IngestError::Otlp("it is not Protocol Buffers, or is cut off".to_owned()));
            };
            let Some(kind) = message.field(number).filter(|_| inner.is_some()) else { continue };
            self.messages += 1;
            self.bytes += kind.size();
            self.records += usize::from(kind == OtlpMessage::Record);
            if self.records > self.max {
                return Err(IngestError::TooMany { limit: self.max, what: "entries" });
            }
            let limit = self.max.saturating_mul(PER_RECORD);
            if self.messages > limit {
                return Err(IngestError::TooMany { limit, what: "values" });
            }
            if depth == DEPTH {
                return Err(IngestError::Otlp("its values nest too deep".to_owned()));
            }
            if kind != OtlpMessage::Text {
                self.walk(kind, inner.unwrap_or_default(), depth + 1)?;
            }
        }
        Ok(())
    }
}

/// Takes the next field: its number, and its bytes if it is length-delimited.
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
        // Groups are deprecated, and no message here has one.
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
