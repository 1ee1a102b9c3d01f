//! Whether an entry is wanted. Pure, and fast where most entries are not: a whole block is searched at once for
//! bytes that every wanted line must have, and only lines that have them are parsed.

use memchr::memmem::Finder;
use regex::Regex;

use crate::entry::line::{Head, head, parse};
use crate::entry::{Level, string};

/// What a reader asks for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) contains: Option<String>,
    pub(super) regex: Option<String>,
    pub(super) source: Option<String>,
    pub(super) trace_id: Option<String>,
    pub(super) level: Option<Level>,
}

/// Whether an entry is wanted. Without anything set, each is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// As in entries.
    pub(super) since: Option<String>,
    /// As in entries; excluded.
    pub(super) until: Option<String>,
    contains: Option<String>,
    regex: Option<Regex>,
    source: Option<String>,
    trace_id: Option<String>,
    level: Option<Level>,
    /// Bytes that every wanted line has.
    needle: Option<Finder<'static>>,
}

impl Filter {
    pub(super) fn new(wanted: Wanted) -> Result<Self, String> {
        let regex = wanted.regex.map(|regex| Regex::new(&regex)).transpose();
        // The last line of the message says what is wrong; those before it draw a picture.
        let regex = regex.map_err(|error| error.to_string().lines().last().unwrap_or_default().to_owned())?;
        let field = |key: &str, value: &str| [b"\"", key.as_bytes(), b"\":", &*escaped(value)].concat();
        // The rarest first: a text, a trace, a source.
        let needle = (wanted.contains.as_deref())
            .map(|text| escaped(text)[1..].strip_suffix(b"\"").unwrap_or_default().to_vec())
            .or_else(|| wanted.trace_id.as_deref().map(|id| field("trace_id", id)))
            .or_else(|| wanted.source.as_deref().map(|name| field("source", name)));
        Ok(Self {
            since: None,
            until: None,
            contains: wanted.contains,
            regex,
            source: wanted.source,
            trace_id: wanted.trace_id,
            level: wanted.level,
            needle: needle.map(|needle| Finder::new(&needle).into_owned()),
        })
    }

    /// The lines of a block that may be wanted, first to last.
    pub(crate) fn candidates<'a>(&'a self, block: &'a [u8]) -> Candidates<'a> {
        Candidates { block, at: 0, needle: self.needle.as_ref() }
    }

    /// The head of a line that is wanted.
    pub(crate) fn wanted<'a>(&self, line: &'a [u8]) -> Option<Head<'a>> {
        let head = head(line)?;
        let since = self.since.as_ref().is_none_or(|since| head.ts >= since.as_bytes());
        let until = self.until.as_ref().is_none_or(|until| head.ts < until.as_bytes());
        (since && until && self.text_wanted(line)).then_some(head)
    }

    fn text_wanted(&self, line: &[u8]) -> bool {
        let all = self.contains.is_none()
            && self.regex.is_none()
            && self.source.is_none()
            && self.trace_id.is_none()
            && self.level.is_none();
        if all {
            return true;
        }
        let Some(entry) = parse(line) else { return false };
        let same =
            |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|text| is == Some(text));
        same(&self.source, entry.source.as_deref())
            && same(&self.trace_id, entry.trace_id.as_deref())
            && self.level.is_none_or(|least| {
                entry
                    .level
                    .as_deref()
                    .and_then(|level| level.parse::<Level>().ok())
                    .is_some_and(|level| level >= least)
            })
            && self.contains.as_deref().is_none_or(|text| entry.msg.contains(text))
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(&entry.msg))
    }
}

/// A JSON string as entries have it: the same text always has the same bytes, so lines can be searched unparsed.
fn escaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    string(&mut out, text);
    out
}

/// Lines without their newlines. The block ends with one.
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
    use crate::entry::{Batch, Origin, Stamp, instance_field, timestamp};

    fn block(entries: &[(&str, Option<&str>, Option<Level>)]) -> Vec<u8> {
        let instance = instance_field("log-1");
        let mut batch = Batch::new(None);
        for (text, source, level) in entries {
            batch.push(
                &Origin { source: *source, level: *level, ..Origin::default() },
                text.as_bytes(),
                None,
            );
        }
        let mut out = Vec::new();
        batch.render(
            &mut out,
            &Stamp { ts: timestamp(jiff::Timestamp::UNIX_EPOCH).as_bytes(), instance: &instance },
            1,
        );
        out
    }

    fn found(filter: &Filter, block: &[u8]) -> Vec<u64> {
        filter.candidates(block).filter_map(|line| filter.wanted(line)).map(|head| head.seq).collect()
    }

    #[test]
    fn each_filter_narrows_and_all_must_hold() {
        let block = block(&[
            ("disk \"hot\"", Some("visit"), Some(Level::Warn)),
            ("disk cold", Some("hits"), Some(Level::Info)),
            ("\"source\":\"visit\"", None, None),
        ]);
        let all = |wanted| found(&Filter::new(wanted).unwrap(), &block);
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(all(Wanted::default()), [1, 2, 3]);
        assert_eq!(all(Wanted { contains: text("disk"), ..Wanted::default() }), [1, 2]);
        assert_eq!(all(Wanted { contains: text("\"hot\""), ..Wanted::default() }), [1]);
        assert_eq!(all(Wanted { source: text("visit"), ..Wanted::default() }), [1]);
        assert_eq!(all(Wanted { level: Some(Level::Info), ..Wanted::default() }), [1, 2]);
        assert_eq!(all(Wanted { regex: text("^disk .old$"), ..Wanted::default() }), [2]);
        assert_eq!(all(Wanted { contains: text("disk"), source: text("hits"), ..Wanted::default() }), [2]);
        assert!(
            all(Wanted { contains: text("instance"), ..Wanted::default() }).is_empty(),
            "keys are no text"
        );
    }

    proptest! {
        #[test]
        fn a_search_finds_what_a_plain_look_finds(
            texts in proptest::collection::vec("[ab\\\\\"\n\u{e9}\u{1}]{1,8}", 1..20),
            part in "[ab\\\\\"\n\u{e9}\u{1}]{1,3}",
        ) {
            let entries: Vec<_> = texts.iter().map(|text| (text.as_str(), None, None)).collect();
            let filter = Filter::new(Wanted { contains: Some(part.clone()), ..Wanted::default() }).unwrap();
            let expected: Vec<u64> =
                (1..).zip(&texts).filter(|(_, text)| text.contains(&part)).map(|(seq, _)| seq).collect();
            prop_assert_eq!(found(&filter, &block(&entries)), expected);
        }
    }
}
