//! The catalogue's clock: monotonic milliseconds since the registry started, so that setting the system clock
//! changes nothing. Wall-clock time is computed from it for display only.

use std::ops::Add;
use std::time::Duration;

/// Milliseconds since the registry started; negative for times read from a snapshot file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Time(i64);

impl Time {
    /// The time `millis` milliseconds after the start.
    pub(crate) fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the start.
    pub(crate) fn as_millis(self) -> i64 {
        self.0
    }

    /// The time from `earlier` to this; zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
}
