//! The catalogue's own clock: monotonic milliseconds since the registry started. It never goes back, whatever
//! happens to the wall clock; wall time is computed from it only where people read it.

use std::ops::Add;
use std::time::Duration;

/// A moment, in milliseconds since the registry started; negative for what a snapshot file tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(i64);

impl Time {
    /// The moment that many milliseconds after the start.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the start.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// How long ago `earlier` was; zero where it is later than this.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
}
