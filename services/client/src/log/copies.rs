//! On how many log instances an entry is stored.

use serde::{Deserialize, Serialize};

/// Most copies of an entry.
pub const MAX_COPIES: usize = 4;

/// How many log instances store an entry before it is acknowledged, each another one. The copies have the same sender,
/// key and content, so readers show the entry once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogCopies {
    count: usize,
    fewer: FewerCopies,
}

/// The fate of an entry that fewer instances have stored, because there are no more that can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FewerCopies {
    /// It is not acknowledged: the sender gets an error.
    #[default]
    Refuse,
    /// It is acknowledged if one instance has stored it, and counted: see [`LogClient::short`](super::LogClient::short).
    Accept,
}

impl Default for LogCopies {
    fn default() -> Self {
        Self { count: 1, fewer: FewerCopies::default() }
    }
}

impl LogCopies {
    /// `count` copies, from 1 to [`MAX_COPIES`]. Other numbers become the nearest of these.
    pub fn new(count: usize, fewer: FewerCopies) -> Self {
        Self { count: count.clamp(1, MAX_COPIES), fewer }
    }

    /// How many.
    pub fn count(self) -> usize {
        self.count
    }

    /// The fate of an entry with fewer.
    pub fn fewer(self) -> FewerCopies {
        self.fewer
    }
}
