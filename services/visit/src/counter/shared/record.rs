//! The value of the key in etcd. Pure.
//!
//! The first line is the count. Each further line is the last write of one replica, newest first: the writer's id and that
//! writer's number for the write. A replica that got no answer finds out from
//! these lines whether its write was applied, even if others have written since.

use std::fmt;

/// Replicas that are remembered. One whose write is not answered must find out before so many others have written.
const MAX_WRITES: usize = 64;

/// The count, and who has counted last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Record {
    pub(super) count: u64,
    writes: Vec<Write>,
}

/// A replica's last write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) writer: String,
    /// Grows with each attempt of the writer.
    pub(super) attempt: u64,
}

/// The value is not a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key's first line is not a number")]
pub struct InvalidCount;

impl Record {
    /// Reads a value. A number alone is one, so that people can set it.
    pub(super) fn parse(value: &[u8]) -> Result<Self, InvalidCount> {
        let text = str::from_utf8(value).map_err(|_| InvalidCount)?;
        let mut lines = text.lines();
        let count = lines.next().unwrap_or("").trim().parse().map_err(|_| InvalidCount)?;
        let write = |line: &str| {
            let (writer, attempt) = line.split_once(' ')?;
            Some(Write { writer: writer.to_owned(), attempt: attempt.trim().parse().ok()? })
        };
        Ok(Self { count, writes: lines.filter_map(write).take(MAX_WRITES).collect() })
    }

    /// The record after a write.
    pub(super) fn after(&self, writer: &str, attempt: u64, count: u64) -> Self {
        let own = Write { writer: writer.to_owned(), attempt };
        let others = self.writes.iter().filter(|write| write.writer != writer).cloned();
        Self { count, writes: std::iter::once(own).chain(others).take(MAX_WRITES).collect() }
    }

    /// A writer's last write, if it is remembered.
    pub(super) fn last_of(&self, writer: &str) -> Option<&Write> {
        self.writes.iter().find(|write| write.writer == writer)
    }

    /// Whether a writer's write is the last of all.
    pub(super) fn is_last(&self, write: &Write) -> bool {
        self.writes.first() == Some(write)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.count)?;
        for Write { writer, attempt } in &self.writes {
            writeln!(f, "{writer} {attempt}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_number_is_one() {
        let record = Record::default().after("a", 1, 5).after("b", 7, 9).after("a", 2, 10);
        assert_eq!(record.to_string(), "10\na 2\nb 7\n");
        assert_eq!(Record::parse(record.to_string().as_bytes()), Ok(record.clone()));
        assert!(
            record.is_last(record.last_of("a").unwrap()) && !record.is_last(record.last_of("b").unwrap())
        );
        assert_eq!(Record::parse(b"41\n").unwrap(), Record { count: 41, writes: vec![] });
        for invalid in [&b""[..], b"x", b"-1", b"\xff", b"1.5"] {
            assert_eq!(Record::parse(invalid), Err(InvalidCount));
        }
    }

    #[test]
    fn a_record_does_not_grow() {
        let record = (0..1_000u64).fold(Record::default(), |record, n| record.after(&format!("w{n}"), n, n));
        assert_eq!(record.writes.len(), MAX_WRITES);
        assert!(record.last_of("w999").is_some() && record.last_of("w0").is_none());
    }
}
