//! The stored form of an entry: one line of JSON. Pure.
//!
//! The keys have a fixed order, so readers find `ts` and `seq` without parsing the line:
//!
//! ```json
//! {"ts":"2026-11-23T08:07:11.123456Z","seq":7,"instance":"log-1","key":"k1","part":0,"of":3,
//!  "source":"visit","source_id":"visit-9","trace_id":"4bf9…","claimed":"backup","claimed_id":"backup-2",
//!  "level":"info","msg":"any text","msg_base64":"…","fields":{}}
//! ```
//!
//! `ts`, `seq`, `instance` and `msg` are always present. If the sender gave a credible time, that is `ts`, and the time
//! of arrival follows `seq` as `received`.
//!
//! Who sent the entry is `source` and `source_id` if it is a member, and otherwise `client`, its address. What the entry
//! itself says about that is `claimed` and `claimed_id`: anybody may write anything there. From `claimed` on the line is
//! the entry's content, by which copies are recognized ([`hubspoke_protocol::entry_content`]); so is its own time.
//!
//! Text that is not valid UTF-8 is stored twice:
//! readable in `msg`, with U+FFFD in place of invalid bytes, and byte for byte in `msg_base64`. JSON strings
//! contain no raw newline, so no text can forge an entry, and no raw quote, so `,"msg":"` occurs once before
//! `fields`, the last key.
//!
//! The request's handler encodes the sender's part of the line. The writer adds only what it alone knows
//! (`ts`, `seq`, `instance`), which keeps it fast.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hubspoke_protocol::{KeyedHash, entry_content};
use jiff::Timestamp;

pub use self::level::{Level, UnknownLevel};
pub(crate) use self::seq::SeqRange;

mod level;
pub(crate) mod line;
mod seq;

/// Attributes of an entry, apart from its text.
#[derive(Debug, Clone, Copy, Default)]
pub struct EntryMeta<'a> {
    /// Registered name of the sender.
    pub source: Option<&'a str>,
    /// `Id` of the sender.
    pub source_id: Option<&'a str>,
    /// Address of a sender that is not a member.
    pub client: Option<&'a str>,
    /// The name that the sender gives itself in the entry.
    pub claimed: Option<&'a str>,
    /// The id that the sender gives itself in the entry.
    pub claimed_id: Option<&'a str>,
    /// W3C trace id: 32 lower-case hexadecimal digits.
    pub trace_id: Option<&'a str>,
    /// Severity.
    pub level: Option<Level>,
    /// When it happened, by its sender's clock. `None`: when it arrives.
    pub time: Option<Timestamp>,
    /// The entry's own key, by which readers recognize a copy. For batches without one.
    pub key: Option<&'a str>,
}

/// The entries of one request, encoded except for what the writer adds. Stored completely or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each entry ends in `bytes`.
    ends: Vec<usize>,
    /// The times of those that have their own, by position.
    times: Vec<(usize, Timestamp)>,
    /// Where the keys that name the sender end in the first entry. All entries have the same sender.
    sender_len: usize,
    key: Option<String>,
}

/// Identifies a batch with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchId {
    /// Whether the sender is a member.
    pub(crate) member: bool,
    /// The key and its sender: see [`batch_key`].
    pub(crate) key: u128,
    /// What all entries contain: see [`add_content`].
    pub(crate) content: u128,
}

impl Batch {
    /// An empty batch. Of the batches that a sender sends under one `key`, only the first is stored.
    pub fn new(key: Option<String>) -> Self {
        Self { key, ..Self::default() }
    }

    /// A batch of one entry.
    pub fn one(meta: &EntryMeta<'_>, msg: &[u8], key: Option<String>) -> Self {
        let mut batch = Self::new(key);
        batch.bytes.reserve(msg.len() + 160);
        batch.push(meta, msg, None);
        batch
    }

    /// Adds an entry; `fields` is a JSON object as text.
    pub fn push(&mut self, meta: &EntryMeta<'_>, msg: &[u8], fields: Option<&str>) {
        self.times.extend(meta.time.map(|time| (self.ends.len(), time)));
        let out = &mut self.bytes;
        write_sender(out, meta.source, meta.source_id, meta.client);
        if self.ends.is_empty() {
            self.sender_len = out.len();
        }
        write_key(out, "trace_id", meta.trace_id);
        write_key(out, "key", meta.key);
        write_key(out, "claimed", meta.claimed);
        write_key(out, "claimed_id", meta.claimed_id);
        write_key(out, "level", meta.level.map(Level::as_str));
        out.extend_from_slice(b",\"msg\":");
        match std::str::from_utf8(msg) {
            Ok(text) => write_string(out, text),
            Err(_) => {
                write_string(out, &String::from_utf8_lossy(msg));
                write_key(out, "msg_base64", Some(&STANDARD.encode(msg)));
            }
        }
        if let Some(fields) = fields {
            out.extend_from_slice(b",\"fields\":");
            // Pretty-printed JSON spans several lines; raw newlines occur only between tokens.
            out.extend(fields.bytes().map(|b| if b == b'\n' || b == b'\r' { b' ' } else { b }));
        }
        out.extend_from_slice(b"}\n");
        self.ends.push(out.len());
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the batch has no entries.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Approximate memory use, in bytes.
    pub(crate) fn weight(&self) -> usize {
        self.bytes.capacity()
            + self.ends.capacity() * size_of::<usize>()
            + self.times.capacity() * size_of::<(usize, Timestamp)>()
            + 128
    }

    /// The length of its entries as they are stored, in bytes, apart from the writer's part.
    pub(crate) fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    /// The idempotency key.
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// What identifies a batch with a key; `None` without one.
    pub(crate) fn id(&self, hash: &KeyedHash) -> Option<BatchId> {
        let sender = &self.bytes[..self.sender_len];
        let member = sender.starts_with(SOURCE);
        let key = batch_key(hash, sender, self.key.as_deref()?);
        let mut start = 0;
        let mut content = NO_CONTENT;
        let mut times = self.times.iter().peekable();
        for (part, &end) in self.ends.iter().enumerate() {
            let time = times.next_if(|(at, _)| *at == part).map(|(_, time)| timestamp(*time));
            let time = time.as_deref().map(str::as_bytes);
            content = add_content(hash, content, time, &self.bytes[start..end]);
            start = end;
        }
        Some(BatchId { member, key, content })
    }

    /// Appends the finished lines to `out`, numbered from `first_seq`.
    pub(crate) fn render(&self, out: &mut Vec<u8>, stamp: &Stamp, first_seq: u64) {
        let mut start = 0;
        let mut times = self.times.iter().peekable();
        for (part, (seq, &end)) in (first_seq..).zip(&self.ends).enumerate() {
            let time = times.next_if(|(at, _)| *at == part).map(|(_, time)| timestamp(*time));
            out.extend_from_slice(b"{\"ts\":\"");
            out.extend_from_slice(time.as_ref().map_or(stamp.ts, String::as_bytes));
            out.extend_from_slice(b"\",\"seq\":");
            out.extend_from_slice(itoa::Buffer::new().format(seq).as_bytes());
            if time.is_some() {
                out.extend_from_slice(b",\"received\":\"");
                out.extend_from_slice(stamp.ts);
                out.push(b'"');
            }
            out.extend_from_slice(stamp.instance);
            if let Some(key) = &self.key {
                write_key(out, "key", Some(key));
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

/// The writer's part of every line of a batch, apart from the sequence number.
pub(crate) struct Stamp<'a> {
    /// From [`TimestampFormatter`] or [`timestamp`].
    pub(crate) ts: &'a [u8],
    /// From [`instance_key`].
    pub(crate) instance: &'a [u8],
}

/// Formats timestamps like [`timestamp`]. Within one second it rewrites the microseconds only.
#[derive(Debug, Default)]
pub(crate) struct TimestampFormatter {
    text: Vec<u8>,
    /// The second that `text` shows.
    second: Option<i64>,
}

impl TimestampFormatter {
    /// The text of `at`, valid until the next call.
    pub(crate) fn format(&mut self, at: Timestamp) -> &[u8] {
        let second = at.as_second();
        // Before 1970 the fraction is negative.
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
                *digit = b'0' + (micros % 10) as u8;
                micros /= 10;
            }
        }
        &self.text
    }
}

/// The digits of the microseconds in a timestamp.
const MICROS: std::ops::Range<usize> = 20..26;

/// RFC 3339 in UTC with microseconds: 27 characters in the years 0 to 9999, so that text order is time order.
pub(crate) fn timestamp(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// `,"instance":"…"`, made once per process.
pub(crate) fn instance_key(instance: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_key(&mut out, "instance", Some(instance));
    out
}

/// How the keys that name a sender begin if it is a member.
const SOURCE: &[u8] = b",\"source\":";

/// The keys that name the sender of a line.
pub(crate) fn write_sender(
    out: &mut Vec<u8>,
    source: Option<&str>,
    source_id: Option<&str>,
    client: Option<&str>,
) {
    write_key(out, "source", source);
    write_key(out, "source_id", source_id);
    write_key(out, "client", client);
}

/// The hash of a key together with its sender, which is given by [`write_sender`].
pub(crate) fn batch_key(hash: &KeyedHash, sender: &[u8], key: &str) -> u128 {
    hash.of(&(sender, key))
}

/// The content of a batch without entries.
pub(crate) const NO_CONTENT: u128 = 0;

/// The hash of a batch's content, given that of its entries so far, and the next one: its own time, if it has one, and
/// its line.
pub(crate) fn add_content(hash: &KeyedHash, before: u128, time: Option<&[u8]>, line: &[u8]) -> u128 {
    let content = std::str::from_utf8(line).ok().and_then(entry_content);
    hash.of(&(before, time, content))
}

fn write_key(out: &mut Vec<u8>, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\":");
        write_string(out, value);
    }
}

/// Writes a JSON string. The same text always has the same bytes, which lets [`crate::query`] search raw
/// lines.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    // Neither serializing a string nor writing to memory fails.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
pub(crate) mod tests;
