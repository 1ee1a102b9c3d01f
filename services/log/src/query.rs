//! Which entries a reader wants, and in which order. Pure: [`scan`] reads the files.
//!
//! | parameter | means |
//! |---|---|
//! | `since`, `until` | RFC 3339, or a time ago (`10m`, `2h`); `since` is included, `until` is not |
//! | `contains` | the text holds this, in this case |
//! | `regex` | the text matches this (the regex crate's syntax) |
//! | `source`, `trace_id` | equal |
//! | `level` | this level or a graver one |
//! | `order` | `desc` (newest first, the default) or `asc` |
//! | `limit` | so many entries at the most; 100 where not given, 0 for all |
//! | `cursor` | `INSTANCE:SEQ` of the last entry read, to go on behind it; several with commas |
//!
//! Within an instance the numbers are the order, so a clock that was set back changes nothing but `since` and
//! `until`: those go by each entry's own time, and look an hour beyond it for entries that are out of order.

use std::time::Duration;

use jiff::Timestamp;

pub(crate) use self::filter::Filter;
use crate::entry::{Level, SeqRange, timestamp};

mod filter;
pub(crate) mod scan;

const DEFAULT_LIMIT: u64 = 100;

/// Which entries, and in which order.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) filter: Filter,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    pub(crate) order: Order,
    /// `None`: all.
    pub(crate) limit: Option<u64>,
    /// `limit` and `order` as they were given, for those to whom they mean something else.
    pub(crate) given: (Option<u64>, Option<Order>),
    /// Instances with the last number read of each.
    pub(crate) cursor: Vec<(String, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Order {
    /// Oldest first.
    Asc,
    /// Newest first.
    #[default]
    Desc,
}

/// A parameter that can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub(crate) struct QueryError {
    pub(crate) key: String,
    pub(crate) why: String,
}

impl Query {
    /// Reads a query string; times ago are counted from `now`.
    pub(crate) fn parse(query: &str, now: Timestamp) -> Result<Self, QueryError> {
        let mut filter = filter::Wanted::default();
        let mut parsed = Self {
            filter: Filter::default(),
            since: None,
            until: None,
            order: Order::default(),
            limit: Some(DEFAULT_LIMIT),
            given: (None, None),
            cursor: Vec::new(),
        };
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = |why: String| QueryError { key: key.chars().take(40).collect(), why };
            let text = || Some(value.clone().into_owned()).filter(|text| !text.is_empty());
            match &*key {
                "since" => parsed.since = Some(time(&value, now).map_err(wrong)?),
                "until" => parsed.until = Some(time(&value, now).map_err(wrong)?),
                "contains" => filter.contains = text(),
                "regex" => filter.regex = text(),
                "source" => filter.source = text(),
                "trace_id" => filter.trace_id = text(),
                "level" => {
                    filter.level = Some(value.parse::<Level>().map_err(|error| wrong(error.to_string()))?)
                }
                "order" => {
                    parsed.order = order(&value).map_err(wrong)?;
                    parsed.given.1 = Some(parsed.order);
                }
                "limit" => {
                    let limit = value.parse().map_err(|_| wrong(format!("{value:?} is no number")))?;
                    parsed.limit = Some(limit).filter(|limit| *limit > 0);
                    parsed.given.0 = Some(limit);
                }
                "cursor" => parsed.cursor = cursor(&value).map_err(wrong)?,
                _ => {
                    let known =
                        "since, until, contains, regex, source, trace_id, level, order, limit and cursor are";
                    return Err(wrong(format!("no parameter here; {known}")));
                }
            }
        }
        parsed.filter = Filter::new(filter).map_err(|why| QueryError { key: "regex".to_owned(), why })?;
        parsed.filter.since = parsed.since.map(timestamp);
        parsed.filter.until = parsed.until.map(timestamp);
        Ok(parsed)
    }

    /// The query string `text`, which this was read from, for another instance: with times that don't depend on
    /// when it is read.
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

    /// The sequence numbers that the query asks of `instance`: those behind its cursor.
    pub(crate) fn seq_range(&self, instance: &str) -> SeqRange {
        match (self.cursor_of(instance), self.order) {
            (None, _) => SeqRange::ALL,
            (Some(seq), Order::Asc) => SeqRange { first: seq.saturating_add(1), ..SeqRange::ALL },
            (Some(seq), Order::Desc) => SeqRange { last: seq.saturating_sub(1), ..SeqRange::ALL },
        }
    }

    /// The last number read of `instance`.
    pub(crate) fn cursor_of(&self, instance: &str) -> Option<u64> {
        self.cursor.iter().find(|(name, _)| name == instance).map(|(_, seq)| *seq)
    }
}

/// Reads `INSTANCE:SEQ,…`.
pub(crate) fn cursor(text: &str) -> Result<Vec<(String, u64)>, String> {
    let one = |part: &str| {
        let (instance, seq) = part.trim().rsplit_once(':')?;
        Some((instance.to_owned(), seq.parse().ok()?))
    };
    let cursors = text.split(',').filter(|part| !part.trim().is_empty());
    cursors.map(|part| one(part).ok_or_else(|| format!("{part:?} is not INSTANCE:SEQ"))).collect()
}

fn order(text: &str) -> Result<Order, String> {
    match text {
        "asc" => Ok(Order::Asc),
        "desc" => Ok(Order::Desc),
        other => Err(format!("{other:?} is neither asc nor desc")),
    }
}

fn time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return now.checked_sub(ago).map_err(|error| error.to_string());
    }
    // In a query string an unescaped `+` of an offset has become a space.
    text.replace(' ', "+")
        .parse()
        .map_err(|_| format!("{text:?} is neither RFC 3339 nor a time ago like 10m"))
}

/// How far out of order times may be: see the module's header.
pub(crate) const SLACK: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Query, QueryError> {
        Query::parse(query, "2026-11-23T08:00:00Z".parse().unwrap())
    }

    #[test]
    fn times_are_absolute_or_ago() {
        for since in ["since=10m", "since=2026-11-23T07:50:00Z", "since=2026-11-23T08:50:00+01:00"] {
            assert_eq!(parse(since).unwrap().since, Some("2026-11-23T07:50:00Z".parse().unwrap()), "{since}");
        }
        assert_eq!(parse("since=10m").unwrap().filter.since.as_deref(), Some("2026-11-23T07:50:00.000000Z"));
    }

    #[test]
    fn a_query_means_the_same_wherever_it_is_read() {
        let text = "since=10m&contains=a%26b+c&limit=7";
        let absolute = parse(text).unwrap().absolute(text);
        assert_eq!(absolute, "since=2026-11-23T07%3A50%3A00.000000Z&contains=a%26b+c&limit=7");
        assert_eq!(parse(&absolute).unwrap().absolute(&absolute), absolute);
    }

    #[test]
    fn what_is_not_given_is_the_last_hundred_newest_first() {
        let query = parse("").unwrap();
        assert_eq!((query.limit, query.order), (Some(100), Order::Desc));
        assert_eq!(parse("limit=0").unwrap().limit, None);
    }

    #[test]
    fn cursors_name_their_instance() {
        let query = parse("cursor=log-1:5,10.0.0.1:20002:7").unwrap();
        assert_eq!(query.cursor_of("log-1"), Some(5));
        assert_eq!(query.cursor_of("10.0.0.1:20002"), Some(7));
        assert_eq!(query.cursor_of("log-2"), None);
    }

    #[test]
    fn what_cant_be_understood_is_named() {
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
