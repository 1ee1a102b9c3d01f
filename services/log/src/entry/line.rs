//! Reads stored lines: `ts` and `seq` without parsing, the other keys only on demand. Pure.
//!
//! The file may contain anything (an operator's edit, a block that a power cut left empty). Every function
//! here returns `None` for a line that is not an entry, and readers skip it.

use std::borrow::Cow;

use serde::Deserialize;

const TS_START: usize = b"{\"ts\":\"".len();
const TS_LEN: usize = 27;
const SEQ: &[u8] = b"\",\"seq\":";
const RECEIVED: &[u8] = b",\"received\":\"";

/// The first keys of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryHead<'a> {
    /// RFC 3339; text order is time order.
    pub(crate) ts: &'a [u8],
    pub(crate) seq: u64,
    /// When the entry arrived, if `ts` is the time that its sender gave.
    pub(crate) received: Option<&'a [u8]>,
}

impl<'a> EntryHead<'a> {
    /// `ts` if it is the time that the sender gave.
    pub(crate) fn own_time(&self) -> Option<&'a [u8]> {
        self.received.map(|_| self.ts)
    }

    /// When the entry arrived. Entries are stored in this order, unless the clock was set back.
    pub(crate) fn arrival(&self) -> &'a [u8] {
        self.received.unwrap_or(self.ts)
    }
}

/// Reads the first keys of a line, which may be cut off after them.
pub(crate) fn head(line: &[u8]) -> Option<EntryHead<'_>> {
    let rest = line.strip_prefix(b"{\"ts\":\"")?;
    let ts = rest.get(..TS_LEN)?;
    let digits = line.get(TS_START + TS_LEN..)?.strip_prefix(SEQ)?;
    let len = digits.iter().position(|b| !b.is_ascii_digit())?;
    let seq = std::str::from_utf8(&digits[..len]).ok()?.parse().ok()?;
    let received = digits[len..].strip_prefix(RECEIVED).and_then(|rest| rest.get(..TS_LEN));
    Some(EntryHead { ts, seq, received })
}

/// The keys of a line that filters, merges and recovery look at.
#[derive(Debug, Deserialize)]
pub(crate) struct ParsedEntry<'a> {
    #[serde(borrow)]
    pub(crate) instance: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) source: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(crate) source_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(crate) client: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(crate) claimed: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(crate) trace_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(crate) level: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(crate) key: Option<Cow<'a, str>>,
    /// Position in a batch with a key, from 0.
    #[serde(default)]
    pub(crate) part: u64,
    /// Number of entries in the batch.
    #[serde(default = "one")]
    pub(crate) of: u64,
    #[serde(borrow)]
    pub(crate) msg: Cow<'a, str>,
}

fn one() -> u64 {
    1
}

/// Parses a line, with or without its newline.
pub(crate) fn parse(line: &[u8]) -> Option<ParsedEntry<'_>> {
    head(line)?;
    serde_json::from_slice(line).ok()
}
