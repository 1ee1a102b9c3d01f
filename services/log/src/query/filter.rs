//! Decides whether an entry matches. Pure, and fast if most entries don't: it searches a whole block for
//! bytes that every match contains, and parses only the lines that have them.

use std::sync::Arc;

use memchr::memmem::Finder;

use super::pattern::Pattern;
use crate::entry::line::{EntryHead, head, parse};
use crate::entry::{Level, write_string};

/// The conditions of a [`Filter`].
#[derive(Debug, Clone, Default)]
pub(super) struct FilterSpec {
    pub(super) contains: Option<String>,
    pub(super) regex: Option<String>,
    pub(super) source: Option<String>,
    pub(super) claimed: Option<String>,
    pub(super) trace_id: Option<String>,
    pub(super) level: Option<Level>,
}

/// All conditions must hold. The default matches every entry.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// In the format of entries; inclusive.
    pub(super) since: Option<String>,
    /// In the format of entries; exclusive.
    pub(super) until: Option<String>,
    contains: Option<String>,
    regex: Option<Arc<Pattern>>,
    source: Option<String>,
    claimed: Option<String>,
    trace_id: Option<String>,
    level: Option<Level>,
    /// Bytes that every matching line contains.
    needle: Option<Finder<'static>>,
}

impl Filter {
    /// Takes some 50 ms for some patterns.
    pub(super) fn new(spec: FilterSpec) -> Result<Self, String> {
        let regex = spec.regex.map(|regex| Pattern::new(&regex).map(Arc::new)).transpose()?;
        let field = |key: &str, value: &str| [b"\"", key.as_bytes(), b"\":", &*escaped(value)].concat();
        // From the condition that is probably the rarest.
        let needle = (spec.contains.as_deref())
            .map(|text| escaped(text)[1..].strip_suffix(b"\"").unwrap_or_default().to_vec())
            .or_else(|| spec.trace_id.as_deref().map(|id| field("trace_id", id)))
            .or_else(|| spec.source.as_deref().map(|name| field("source", name)))
            .or_else(|| spec.claimed.as_deref().map(|name| field("claimed", name)));
        Ok(Self {
            since: None,
            until: None,
            contains: spec.contains,
            regex,
            source: spec.source,
            claimed: spec.claimed,
            trace_id: spec.trace_id,
            level: spec.level,
            needle: needle.map(|needle| Finder::new(&needle).into_owned()),
        })
    }

    /// The lines of a block that may match, first to last.
    pub(crate) fn candidates<'a>(&'a self, block: &'a [u8]) -> Candidates<'a> {
        Candidates { block, at: 0, needle: self.needle.as_ref() }
    }

    /// Whether it searches for a pattern, which may take long.
    pub(crate) fn has_pattern(&self) -> bool {
        self.regex.is_some()
    }

    /// The head of a line, if the line matches. `go_on` may end the search for a pattern; then it does not.
    pub(crate) fn matching<'a>(
        &self,
        line: &'a [u8],
        go_on: &mut dyn FnMut() -> bool,
    ) -> Option<EntryHead<'a>> {
        let head = head(line)?;
        let since = self.since.as_ref().is_none_or(|since| head.ts >= since.as_bytes());
        let until = self.until.as_ref().is_none_or(|until| head.ts < until.as_bytes());
        (since && until && self.content_matches(line, go_on)).then_some(head)
    }

    fn content_matches(&self, line: &[u8], go_on: &mut dyn FnMut() -> bool) -> bool {
        let all = self.contains.is_none()
            && self.regex.is_none()
            && self.source.is_none()
            && self.claimed.is_none()
            && self.trace_id.is_none()
            && self.level.is_none();
        if all {
            return true;
        }
        let Some(entry) = parse(line) else { return false };
        let same = |expected: &Option<String>, actual: Option<&str>| {
            expected.as_deref().is_none_or(|text| actual == Some(text))
        };
        same(&self.source, entry.source.as_deref())
            && same(&self.claimed, entry.claimed.as_deref())
            && same(&self.trace_id, entry.trace_id.as_deref())
            && self.level.is_none_or(|least| {
                entry
                    .level
                    .as_deref()
                    .and_then(|level| level.parse::<Level>().ok())
                    .is_some_and(|level| level >= least)
            })
            && self.contains.as_deref().is_none_or(|text| entry.msg.contains(text))
            && self.regex.as_ref().is_none_or(|regex| regex.matches(&entry.msg, go_on) == Some(true))
    }
}

/// The JSON string that stands for `text` in every line.
fn escaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_string(&mut out, text);
    out
}

/// Iterates over lines without their newlines. The block ends with a newline.
pub(crate) struct Candidates<'a> {
    block: &'a [u8],
    at: usize,
    needle: Option<&'a Finder<'static>>,
}

impl<'a> Iterator for Candidates<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.block.get(self.at..).filter(|rest| !rest.is_empty())?;
        let (start, found) = match self.needle {
            None => (0, 0),
            Some(needle) => {
                let found = needle.find(rest)?;
                (memchr::memrchr(b'\n', &rest[..found]).map_or(0, |newline| newline + 1), found)
            }
        };
        let end = found + memchr::memchr(b'\n', &rest[found..])?;
        self.at += end + 1;
        Some(&rest[start..end])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::tests::render_at;
    use crate::entry::{Batch, EntryMeta};

    fn block(entries: &[(&str, Option<&str>, Option<Level>)]) -> Vec<u8> {
        let mut batch = Batch::new(None);
        for (text, source, level) in entries {
            let meta = EntryMeta { source: *source, level: *level, ..EntryMeta::default() };
            batch.push(&meta, text.as_bytes(), None);
        }
        render_at(&batch, jiff::Timestamp::UNIX_EPOCH, 1)
    }

    fn found(filter: &Filter, block: &[u8]) -> Vec<u64> {
        filter
            .candidates(block)
            .filter_map(|line| filter.matching(line, &mut || true))
            .map(|head| head.seq)
            .collect()
    }

    #[test]
    fn all_conditions_must_hold() {
        let block = block(&[
            ("disk \"hot\"", Some("visit"), Some(Level::Warn)),
            ("disk cold", Some("hits"), Some(Level::Info)),
            ("\"source\":\"visit\"", None, None),
        ]);
        let all = |spec| found(&Filter::new(spec).unwrap(), &block);
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(all(FilterSpec::default()), [1, 2, 3]);
        assert_eq!(all(FilterSpec { contains: text("disk"), ..FilterSpec::default() }), [1, 2]);
        assert_eq!(all(FilterSpec { contains: text("\"hot\""), ..FilterSpec::default() }), [1]);
        assert_eq!(all(FilterSpec { source: text("visit"), ..FilterSpec::default() }), [1]);
        assert_eq!(all(FilterSpec { level: Some(Level::Info), ..FilterSpec::default() }), [1, 2]);
        assert_eq!(all(FilterSpec { regex: text("^disk .old$"), ..FilterSpec::default() }), [2]);
        assert_eq!(
            all(FilterSpec { contains: text("disk"), source: text("hits"), ..FilterSpec::default() }),
            [2]
        );
        assert!(
            all(FilterSpec { contains: text("instance"), ..FilterSpec::default() }).is_empty(),
            "keys are not text"
        );
    }

    proptest! {
        #[test]
        fn the_search_agrees_with_plain_matching(
            texts in proptest::collection::vec("[ab\\\\\"\n\u{e9}\u{1}]{1,8}", 1..20),
            part in "[ab\\\\\"\n\u{e9}\u{1}]{1,3}",
        ) {
            let entries: Vec<_> = texts.iter().map(|text| (text.as_str(), None, None)).collect();
            let filter = Filter::new(FilterSpec { contains: Some(part.clone()), ..FilterSpec::default() }).unwrap();
            let expected: Vec<u64> =
                (1..).zip(&texts).filter(|(_, text)| text.contains(&part)).map(|(seq, _)| seq).collect();
            prop_assert_eq!(found(&filter, &block(&entries)), expected);
        }
    }
}
