//! Queries: which entries a reader gets, and in which order. Pure: [`scan`] reads the files.
//!
//! | parameter | meaning |
//! |---|---|
//! | `since`, `until` | RFC 3339, or an age (`10m`, `2h`); `since` is inclusive, `until` exclusive |
//! | `contains` | the text contains this; case matters |
//! | `regex` | the text matches this (syntax of the regex crate; at most 1,000 bytes, see [`pattern`]) |
//! | `source`, `trace_id` | equal to this |
//! | `claimed` | the name that the sender gave itself equals this; `source` never matches such a claim |
//! | `level` | this level or higher |
//! | `order` | `desc` (newest first) or `asc`; `asc` by default if there is a `cursor`, which continues, else `desc` |
//! | `limit` | at most this many entries; 100 by default, 0 for all |
//! | `cursor` | `INSTANCE:SEQ` of the last entry read, to continue after it; several separated by commas |
//!
//! Entries are given in the order of their times, which are those of their events if their senders gave
//! credible ones ([`sort`]). With a cursor they are given in the order of their arrival, which is that of the
//! sequence numbers: so pages are complete, and a reader that continues misses none that comes late. `since`
//! and `until` compare the times, and look two hours beyond them: one for events that arrive late, one for a
//! clock that was set back.

use std::time::Duration;

use jiff::Timestamp;

pub(crate) use self::filter::Filter;
use self::filter::FilterSpec;
use crate::entry::{Level, SeqRange, timestamp};

mod filter;
mod pattern;
pub(crate) mod scan;
mod sort;

const DEFAULT_LIMIT: u64 = 100;
/// How far out of order the times of entries may be: late by an hour, on a clock that was set back by an hour.
pub(crate) const CLOCK_SLACK: Duration = Duration::from_secs(2 * 3600);

/// A parsed query string.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) filter: Filter,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    pub(crate) order: SortOrder,
    /// `None`: all.
    pub(crate) limit: Option<u64>,
    /// `limit` and `order` as given, for `/log/tail`, which has other defaults.
    pub(crate) explicit_limit: Option<u64>,
    pub(crate) explicit_order: Option<SortOrder>,
    /// By time; otherwise in the order of arrival.
    pub(crate) sorts: bool,
    /// Instances with the last sequence number read from each.
    pub(crate) cursor: Vec<(String, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum SortOrder {
    /// Oldest first.
    Asc,
    /// Newest first.
    #[default]
    Desc,
}

/// An invalid parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub(crate) struct QueryError {
    pub(crate) key: String,
    pub(crate) reason: String,
}

impl QueryError {
    /// An error about a parameter whose name comes from the caller.
    pub(crate) fn new(key: &str, reason: impl Into<String>) -> Self {
        Self { key: key.chars().take(40).collect(), reason: reason.into() }
    }
}

impl Query {
    /// Whether a query string asks for a pattern, which takes long to compile and to search for.
    pub(crate) fn asks_for_pattern(query: &str) -> bool {
        form_urlencoded::parse(query.as_bytes()).any(|(key, _)| key == "regex")
    }

    /// Parses a query string; ages count back from `now`.
    pub(crate) fn parse(query: &str, now: Timestamp) -> Result<Self, QueryError> {
        let mut filter = FilterSpec::default();
        let mut parsed = Self {
            filter: Filter::default(),
            since: None,
            until: None,
            order: SortOrder::default(),
            limit: Some(DEFAULT_LIMIT),
            explicit_limit: None,
            explicit_order: None,
            sorts: true,
            cursor: Vec::new(),
        };
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let invalid = |reason: String| QueryError::new(&key, reason);
            let text = || Some(value.clone().into_owned()).filter(|text| !text.is_empty());
            match &*key {
                "since" => parsed.since = Some(parse_time(&value, now).map_err(invalid)?),
                "until" => parsed.until = Some(parse_time(&value, now).map_err(invalid)?),
                "contains" => filter.contains = text(),
                "regex" => filter.regex = text(),
                "source" => filter.source = text(),
                "claimed" => filter.claimed = text(),
                "trace_id" => filter.trace_id = text(),
                "level" => {
                    filter.level = Some(value.parse::<Level>().map_err(|error| invalid(error.to_string()))?)
                }
                "order" => {
                    parsed.order = parse_order(&value).map_err(invalid)?;
                    parsed.explicit_order = Some(parsed.order);
                }
                "limit" => {
                    let limit = value.parse().map_err(|_| invalid(format!("{value:?} is not a number")))?;
                    parsed.limit = Some(limit).filter(|limit| *limit > 0);
                    parsed.explicit_limit = Some(limit);
                }
                "cursor" => parsed.cursor = parse_cursor(&value).map_err(invalid)?,
                _ => {
                    let known = "since, until, contains, regex, source, claimed, trace_id, level, order, limit and cursor";
                    return Err(invalid(format!("unknown parameter; the known ones are {known}")));
                }
            }
        }
        if parsed.explicit_order.is_none() && !parsed.cursor.is_empty() {
            parsed.order = SortOrder::Asc;
        }
        parsed.sorts = parsed.cursor.is_empty();
        parsed.filter = Filter::new(filter).map_err(|reason| QueryError::new("regex", reason))?;
        parsed.filter.since = parsed.since.map(timestamp);
        parsed.filter.until = parsed.until.map(timestamp);
        Ok(parsed)
    }

    /// The query string `text`, which this was parsed from, with absolute times: for another instance, which
    /// parses it later.
    pub(crate) fn absolute(&self, text: &str) -> String {
        let mut absolute = form_urlencoded::Serializer::new(String::new());
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            let time = match &*key {
                "since" => self.since,
                "until" => self.until,
                _ => None,
            };
            absolute.append_pair(&key, &time.map_or_else(|| value.into_owned(), timestamp));
        }
        absolute.finish()
    }

    /// The sequence numbers that the query asks of `instance`: those after its cursor, in the order of the
    /// query.
    pub(crate) fn seq_range(&self, instance: &str) -> SeqRange {
        match (self.cursor_of(instance), self.order) {
            (None, _) => SeqRange::ALL,
            (Some(seq), SortOrder::Asc) => SeqRange { first: seq.saturating_add(1), ..SeqRange::ALL },
            (Some(seq), SortOrder::Desc) => SeqRange { last: seq.saturating_sub(1), ..SeqRange::ALL },
        }
    }

    /// The last sequence number read from `instance`.
    pub(crate) fn cursor_of(&self, instance: &str) -> Option<u64> {
        self.cursor.iter().find(|(name, _)| name == instance).map(|(_, seq)| *seq)
    }
}

/// Parses `INSTANCE:SEQ,…`.
pub(crate) fn parse_cursor(text: &str) -> Result<Vec<(String, u64)>, String> {
    let one = |part: &str| {
        let (instance, seq) = part.trim().rsplit_once(':')?;
        Some((instance.to_owned(), seq.parse().ok()?))
    };
    let cursors = text.split(',').filter(|part| !part.trim().is_empty());
    cursors.map(|part| one(part).ok_or_else(|| format!("{part:?} is not INSTANCE:SEQ"))).collect()
}

fn parse_order(text: &str) -> Result<SortOrder, String> {
    match text {
        "asc" => Ok(SortOrder::Asc),
        "desc" => Ok(SortOrder::Desc),
        other => Err(format!("{other:?} is neither asc nor desc")),
    }
}

fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return now.checked_sub(ago).map_err(|error| error.to_string());
    }
    // In a query string, the unescaped `+` of an offset becomes a space.
    text.replace(' ', "+")
        .parse()
        .map_err(|_| format!("{text:?} is neither an RFC 3339 time nor an age like 10m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Query, QueryError> {
        Query::parse(query, "2026-11-23T08:00:00Z".parse().unwrap())
    }

    #[test]
    fn times_are_absolute_or_relative() {
        for since in ["since=10m", "since=2026-11-23T07:50:00Z", "since=2026-11-23T08:50:00+01:00"] {
            assert_eq!(parse(since).unwrap().since, Some("2026-11-23T07:50:00Z".parse().unwrap()), "{since}");
        }
        assert_eq!(parse("since=10m").unwrap().filter.since.as_deref(), Some("2026-11-23T07:50:00.000000Z"));
    }

    #[test]
    fn an_absolute_query_means_the_same_on_every_instance() {
        let text = "since=10m&contains=a%26b+c&limit=7";
        let absolute = parse(text).unwrap().absolute(text);
        assert_eq!(absolute, "since=2026-11-23T07%3A50%3A00.000000Z&contains=a%26b+c&limit=7");
        assert_eq!(parse(&absolute).unwrap().absolute(&absolute), absolute);
    }

    #[test]
    fn the_default_is_the_last_hundred_newest_first() {
        let query = parse("").unwrap();
        assert_eq!((query.limit, query.order), (Some(100), SortOrder::Desc));
        assert_eq!(parse("limit=0").unwrap().limit, None);
    }

    #[test]
    fn a_cursor_names_its_instance() {
        let query = parse("cursor=log-1:5,10.0.0.1:20002:7").unwrap();
        assert_eq!(query.cursor_of("log-1"), Some(5));
        assert_eq!(query.cursor_of("10.0.0.1:20002"), Some(7));
        assert_eq!(query.cursor_of("log-2"), None);
    }

    #[test]
    fn a_cursor_continues_with_newer_entries_unless_older_ones_are_asked_for() {
        assert_eq!(parse("cursor=log-1:5").unwrap().order, SortOrder::Asc);
        assert_eq!(parse("limit=7&cursor=log-1:5,log-2:0").unwrap().order, SortOrder::Asc);
        assert_eq!(parse("cursor=log-1:5&order=desc").unwrap().order, SortOrder::Desc);
        assert_eq!(parse("order=desc&cursor=log-1:5").unwrap().order, SortOrder::Desc);
        assert_eq!(parse("cursor=").unwrap().order, SortOrder::Desc);
    }

    #[test]
    fn an_invalid_parameter_is_named() {
        for (query, key) in [
            ("since=yesterday", "since"),
            ("level=loud", "level"),
            ("order=up", "order"),
            ("limit=-1", "limit"),
            ("cursor=x", "cursor"),
            ("regex=(", "regex"),
            ("contain=x", "contain"),
        ] {
            let error = parse(query).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{key}: ")), "{error}");
        }
    }
}
