//! One entry: what a sender gives, and the JSON line that is kept of it. Pure.
//!
//! A line has its keys in this order, so that readers can look at the first two without parsing it:
//!
//! ```json
//! {"ts":"2026-11-23T08:07:11.123456Z","seq":7,"instance":"log-1","source":"visit","source_id":"visit-9",
//!  "trace_id":"4bf9…","level":"info","key":"k1","part":0,"of":3,"msg":"any text","msg_base64":"…","fields":{}}
//! ```
//!
//! Only `ts`, `seq`, `instance` and `msg` are always there. Text that is not UTF-8 is kept twice: readable in `msg`,
//! with U+FFFD for what could not be read, and exactly in `msg_base64`. JSON strings have no raw newline, so no
//! text can forge an entry, and no raw quote, so `,"msg":"` occurs once outside `fields`, which come last.
//!
//! A sender's part of the line is made where the request is handled; the writer adds only what it alone knows
//! (`ts`, `seq`, `instance`), which keeps it fast.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

pub use self::level::{Level, UnknownLevel};
pub(crate) use self::seq::SeqRange;

mod level;
pub(crate) mod line;
mod seq;

/// Facts that all entries of one request share.
#[derive(Debug, Clone, Copy, Default)]
pub struct Origin<'a> {
    /// Registered name of the sender.
    pub source: Option<&'a str>,
    /// `Id` of the sender.
    pub source_id: Option<&'a str>,
    /// W3C trace id: 32 lower-case hexadecimal digits.
    pub trace_id: Option<&'a str>,
    /// How grave it is.
    pub level: Option<Level>,
    /// What makes this entry, of all in its request, known to readers if it is sent twice.
    pub key: Option<&'a str>,
}

/// Entries of one request, each encoded up to what only the writer knows. Written all or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each entry ends in `bytes`.
    ends: Vec<usize>,
    key: Option<String>,
}

impl Batch {
    /// No entries yet. Entries with the same `key` are kept once, however often they are sent.
    pub fn new(key: Option<String>) -> Self {
        Self { key, ..Self::default() }
    }

    /// One entry.
    pub fn one(origin: &Origin<'_>, msg: &[u8], key: Option<String>) -> Self {
        let mut batch = Self::new(key);
        batch.bytes.reserve(msg.len() + 160);
        batch.push(origin, msg, None);
        batch
    }

    /// Adds an entry; `fields` is a JSON object as text.
    pub fn push(&mut self, origin: &Origin<'_>, msg: &[u8], fields: Option<&str>) {
        let out = &mut self.bytes;
        field(out, "source", origin.source);
        field(out, "source_id", origin.source_id);
        field(out, "trace_id", origin.trace_id);
        field(out, "level", origin.level.map(Level::as_str));
        field(out, "key", origin.key);
        out.extend_from_slice(b",\"msg\":");
        match std::str::from_utf8(msg) {
            Ok(text) => string(out, text),
            Err(_) => {
                string(out, &String::from_utf8_lossy(msg));
                field(out, "msg_base64", Some(&STANDARD.encode(msg)));
            }
        }
        if let Some(fields) = fields {
            out.extend_from_slice(b",\"fields\":");
            // JSON text may be laid out over several lines; raw newlines stand only between tokens.
            out.extend(fields.bytes().map(|b| if b == b'\n' || b == b'\r' { b' ' } else { b }));
        }
        out.extend_from_slice(b"}\n");
        self.ends.push(out.len());
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// What it takes in memory, in bytes.
    pub(crate) fn weight(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>() + 128
    }

    /// The key under which these entries are kept once.
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Appends the finished lines to `out`, numbered from `first_seq`.
    pub(crate) fn render(&self, out: &mut Vec<u8>, stamp: &Stamp, first_seq: u64) {
        let mut start = 0;
        for (part, (seq, &end)) in (first_seq..).zip(&self.ends).enumerate() {
            out.extend_from_slice(b"{\"ts\":\"");
            out.extend_from_slice(stamp.ts);
            out.extend_from_slice(b"\",\"seq\":");
            out.extend_from_slice(itoa::Buffer::new().format(seq).as_bytes());
            out.extend_from_slice(stamp.instance);
            if let Some(key) = &self.key {
                field(out, "key", Some(key));
                if self.ends.len() > 1 {
                    // Writing to memory does not fail.
                    let _ = write!(out, ",\"part\":{part},\"of\":{}", self.ends.len());
                }
            }
            out.extend_from_slice(&self.bytes[start..end]);
            start = end;
        }
    }
}

/// What the writer adds to each line of a batch, beside the number.
pub(crate) struct Stamp<'a> {
    /// What [`Clock`] or [`timestamp`] made.
    pub(crate) ts: &'a [u8],
    /// What [`instance_field`] made.
    pub(crate) instance: &'a [u8],
}

/// Makes timestamps; those of one second share most of the work.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    text: Vec<u8>,
    /// The second that `text` is of.
    second: Option<i64>,
}

impl Clock {
    /// What [`timestamp`] makes.
    pub(crate) fn timestamp(&mut self, at: Timestamp) -> &[u8] {
        let second = at.as_second();
        // Before 1970 a second's parts count backwards.
        let Ok(mut micros) = u32::try_from(at.subsec_microsecond()) else {
            self.second = None;
            self.text = timestamp(at).into_bytes();
            return &self.text;
        };
        if self.second != Some(second) || second < 0 {
            self.text = timestamp(at).into_bytes();
            self.second = Some(second);
        } else if let Some(digits) = self.text.get_mut(MICROS) {
            for digit in digits.iter_mut().rev() {
                // Below ten.
                *digit = b'0' + (micros % 10) as u8;
                micros /= 10;
            }
        }
        &self.text
    }
}

/// Where the microseconds are in a timestamp.
const MICROS: std::ops::Range<usize> = 20..26;

/// RFC 3339 in UTC with microseconds: 27 characters in the years 0 to 9999, so that text order is time order.
pub(crate) fn timestamp(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// `,"instance":"…"`, made once per process.
pub(crate) fn instance_field(instance: &str) -> Vec<u8> {
    let mut out = Vec::new();
    field(&mut out, "instance", Some(instance));
    out
}

fn field(out: &mut Vec<u8>, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\":");
        string(out, value);
    }
}

/// A JSON string, escaped in the one way that [`crate::query`] relies on when it searches raw lines.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    // Neither a string nor writing to memory can fail to serialize.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests;
