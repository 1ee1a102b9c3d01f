//! Severity levels. Pure.

use std::str::FromStr;

/// Severity, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Step by step.
    Trace,
    /// For developers.
    Debug,
    /// Normal events.
    Info,
    /// Needs a look.
    Warn,
    /// A failure.
    Error,
}

/// An unknown level name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a level; use trace, debug, info, warn or error")]
pub struct UnknownLevel(String);

impl Level {
    /// Every level, lowest first.
    pub const ALL: [Self; 5] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// The name in stored entries.
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

    /// Case is ignored. Other loggers' `warning` is `warn`; their `fatal` and `critical` are `error`.
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
