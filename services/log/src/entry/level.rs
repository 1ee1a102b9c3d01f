//! Severity levels, and what other loggers call them. Pure.

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

/// An unknown level name or number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a level; use trace, debug, info, warn or error")]
pub struct UnknownLevel(String);

/// The names of syslog, Python, log4j, java.util.logging, .NET, zap, winston, loguru, and logcat's letters.
const NAMES: [(Level, &[&str]); 5] = [
    (Level::Trace, &["trace", "finest", "finer", "verbose", "silly", "all", "trce", "vrb", "t", "v"]),
    (Level::Debug, &["debug", "fine", "config", "dbug", "dbg", "d"]),
    (Level::Info, &["info", "information", "informational", "notice", "success", "log", "inf", "i", "n"]),
    (Level::Warn, &["warn", "warning", "wrn", "w"]),
    (
        Level::Error,
        &[
            "error",
            "err",
            "eror",
            "fatal",
            "critical",
            "crit",
            "alert",
            "emerg",
            "emergency",
            "panic",
            "dpanic",
            "severe",
            "fail",
            "failure",
            "fault",
            "ftl",
            "e",
            "f",
            "c",
            "a",
        ],
    ),
];

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

    /// From a number whose logger is not known: 0 to 7 are syslog's (0 is the most severe), 10 to 69 those of pino and
    /// bunyan. Python's have the same range, one level lower; see [`Level::from_python`].
    pub fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0..=3 => Self::Error,
            4 => Self::Warn,
            5 | 6 => Self::Info,
            7 => Self::Debug,
            10..=19 => Self::Trace,
            20..=29 => Self::Debug,
            30..=39 => Self::Info,
            40..=49 => Self::Warn,
            50..=69 => Self::Error,
            _ => return None,
        })
    }

    /// From a number of Python's `logging`.
    pub fn from_python(number: u32) -> Option<Self> {
        Some(match number {
            1..=9 => Self::Trace,
            10..=19 => Self::Debug,
            20..=29 => Self::Info,
            30..=39 => Self::Warn,
            40..=100 => Self::Error,
            _ => return None,
        })
    }

    /// From a `SeverityNumber` of OpenTelemetry's log data model; 0 is unspecified.
    pub fn from_otlp(number: u32) -> Option<Self> {
        Some(match number {
            1..=4 => Self::Trace,
            5..=8 => Self::Debug,
            9..=12 => Self::Info,
            13..=16 => Self::Warn,
            17..=24 => Self::Error,
            _ => return None,
        })
    }

    fn from_name(name: &str) -> Option<Self> {
        let known =
            |(_, names): &&(Self, &[&str])| names.iter().any(|known| name.eq_ignore_ascii_case(known));
        NAMES.iter().find(known).map(|(level, _)| *level)
    }

    fn lower(self) -> Self {
        match self {
            Self::Trace | Self::Debug => Self::Trace,
            Self::Info => Self::Debug,
            Self::Warn => Self::Info,
            Self::Error => Self::Warn,
        }
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    /// Names in any case, OpenTelemetry's `WARN2` and slog's `INFO+2` and `DEBUG-4` among them, and numbers as
    /// [`Level::from_number`] reads them.
    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        let name = text.trim().trim_start_matches('[').trim_end_matches(']');
        let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let level = match (base, &name[base.len()..]) {
            ("", number) => number.parse().ok().and_then(Self::from_number),
            (base, "") => Self::from_name(base),
            (base, "2" | "3" | "4") if !base.ends_with(['+', '-']) => {
                Self::from_name(base).filter(|_| base.len() >= 4)
            }
            (base, _) => match base.strip_suffix('-') {
                Some(base) => Self::from_name(base).map(Self::lower),
                None => base.strip_suffix('+').and_then(Self::from_name),
            },
        };
        level.ok_or_else(|| UnknownLevel(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_other_loggers_are_levels_in_any_case() {
        for (level, names) in [
            (Level::Trace, "trace TRACE Finest FINER Verbose TRACE2 DEBUG-4 trce 10 19"),
            (Level::Debug, "debug DEBUG Fine CONFIG DEBUG4 INFO-1 dbug 7 20 D"),
            (Level::Info, "info INFO notice Information informational INFO+2 info3 5 6 30 I"),
            (Level::Warn, "warn WARNING Warning WARN2 WARN+1 ERROR-3 4 40 W [warn]"),
            (
                Level::Error,
                "error err ERROR crit CRITICAL alert emerg EMERGENCY fatal FATAL4 SEVERE panic DPANIC ERROR+4 0 1 2 3 50 60 E",
            ),
        ] {
            for name in names.split(' ') {
                assert_eq!(name.parse(), Ok(level), "{name}");
            }
        }
        for unknown in [
            "",
            "loud",
            "8",
            "9",
            "70",
            "-1",
            "99999999999999",
            "4.5",
            "+",
            "2x",
            "error5",
            "d2",
            "inf\u{f6}",
        ] {
            assert!(unknown.parse::<Level>().is_err(), "{unknown}");
        }
        assert!(
            Level::ALL.is_sorted() && Level::ALL.iter().all(|level| level.as_str().parse() == Ok(*level))
        );
    }

    #[test]
    fn a_number_means_what_its_logger_means() {
        let numbers = |read: fn(u32) -> Option<Level>, numbers: &[u32]| {
            numbers
                .iter()
                .map(|number| read(*number).map_or("-", Level::as_str))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(numbers(Level::from_number, &[0, 3, 4, 6, 7, 8]), "error error warn info debug -");
        assert_eq!(
            numbers(Level::from_number, &[10, 20, 30, 40, 50, 60]),
            "trace debug info warn error error"
        );
        assert_eq!(numbers(Level::from_python, &[0, 10, 20, 30, 40, 50]), "- debug info warn error error");
        assert_eq!(
            numbers(Level::from_otlp, &[0, 1, 5, 9, 13, 17, 24, 25]),
            "- trace debug info warn error error -"
        );
    }
}
