//! One entry: the log service's JSON line. Pure.

use serde::Deserialize;

/// The keys of an entry that order it and tell copies apart, and its text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct EntryLine {
    pub(super) ts: String,
    pub(super) seq: u64,
    pub(super) instance: String,
    /// When it arrived, if `ts` is its sender's own time.
    #[serde(default)]
    pub(super) received: Option<String>,
    #[serde(default)]
    pub(super) source: Option<String>,
    #[serde(default)]
    pub(super) source_id: Option<String>,
    #[serde(default)]
    pub(super) client: Option<String>,
    #[serde(default)]
    pub(super) level: Option<String>,
    #[serde(default)]
    pub(super) key: Option<String>,
    #[serde(default)]
    pub(super) part: u64,
    #[serde(default = "one")]
    pub(super) of: u64,
    pub(super) msg: String,
}

fn one() -> u64 {
    1
}

/// Reads a stored line; `None` if it is not an entry.
pub(super) fn parse(line: &str) -> Option<EntryLine> {
    serde_json::from_str(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_line_is_an_entry() {
        let line = r#"{"ts":"2026-11-23T08:07:11.123456Z","seq":7,"instance":"log-1","source":"visit","source_id":"visit-9","trace_id":"4b","level":"warn","key":"k","part":2,"of":3,"msg":"visit 12","fields":{"a":1}}"#;
        let entry = parse(line).unwrap();
        assert_eq!((entry.seq, entry.part, entry.key.as_deref()), (7, 2, Some("k")));
        assert_eq!(parse("invalid"), None);
    }
}
