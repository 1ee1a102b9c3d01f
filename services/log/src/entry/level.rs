//! How grave an entry is. Pure.

use std::str::FromStr;

/// How grave an entry is, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Finest steps.
    Trace,
    /// For developers.
    Debug,
    /// Normal events.
    Info,
    /// Something to look at.
    Warn,
    /// Something failed.
    Error,
}

/// Not a level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no level: trace, debug, info, warn or error")]
pub struct UnknownLevel(String);

impl Level {
    /// Every level, least grave first.
    pub const ALL: [Self; 5] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// As it stands in entries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    /// Any case; `warning`, `fatal` and `critical` are what other loggers call two of these.
    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        let is = |name: &str| text.eq_ignore_ascii_case(name);
        if is("warning") {
            return Ok(Self::Warn);
        }
        if is("fatal") || is("critical") {
            return Ok(Self::Error);
        }
        let level = Self::ALL.into_iter().find(|level| is(level.as_str()));
        level.ok_or_else(|| UnknownLevel(text.chars().take(40).collect()))
    }
}
