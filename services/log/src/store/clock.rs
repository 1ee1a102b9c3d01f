//! The time of day for what can't be undone: it ignores jumps of the system's clock until they have lasted. Pure.
//!
//! A clock is wrong at times: at boot, before the network has set it, or for the minutes in which somebody tries
//! another date. Retention would remove entries for good. So it takes its time from here.

use std::time::{Duration, SystemTime};

/// How far the system's clock may be from where it should be without having jumped.
const TOLERANCE: Duration = Duration::from_secs(3600);
/// A jump that has lasted this long is believed. Retention is late by as much after a jump that is right, as after a
/// laptop's sleep.
const BELIEVED_AFTER: Duration = Duration::from_secs(6 * 3600);

/// A clock that advances with the process's uptime, and follows the system's clock unless that jumps.
#[derive(Debug)]
pub(super) struct SteadyClock {
    time: SystemTime,
    /// The uptime at `time`.
    at: Duration,
    /// The uptime at which the system's clock was first seen elsewhere.
    jumped: Option<Duration>,
}

impl SteadyClock {
    /// Starts at the time of the last write, if there was one: a clock that is far from it may not be set yet.
    pub(super) fn new(last_write: Option<SystemTime>, system: SystemTime) -> Self {
        Self { time: last_write.unwrap_or(system), at: Duration::ZERO, jumped: None }
    }

    /// The time, if the system's clock shows `system` after `uptime`.
    pub(super) fn now(&mut self, system: SystemTime, uptime: Duration) -> SystemTime {
        let expected = self.time + uptime.saturating_sub(self.at);
        let off = system.duration_since(expected).unwrap_or_else(|behind| behind.duration());
        let jumped = (off > TOLERANCE).then(|| self.jumped.unwrap_or(uptime));
        if jumped.is_none_or(|since| uptime.saturating_sub(since) >= BELIEVED_AFTER) {
            *self = Self { time: system, at: uptime, jumped: None };
            return system;
        }
        self.jumped = jumped;
        expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_jump_is_believed_only_after_it_has_lasted() {
        let start = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        let minutes = |count: u64| Duration::from_secs(60 * count);
        for jumped in [start + 31 * DAY, start - 31 * DAY, SystemTime::UNIX_EPOCH] {
            let mut clock = SteadyClock::new(None, start);
            assert_eq!(clock.now(start + minutes(5), minutes(5)), start + minutes(5));
            for minute in 6..7 {
                assert_eq!(clock.now(jumped, minutes(minute)), start + minutes(minute), "a minute elsewhere");
            }
            assert_eq!(clock.now(start + minutes(7), minutes(7)), start + minutes(7), "and back");
            for minute in 8..8 + 360 {
                assert_eq!(clock.now(jumped + minutes(minute), minutes(minute)), start + minutes(minute));
            }
            assert_eq!(clock.now(jumped + minutes(368), minutes(368)), jumped + minutes(368));
        }
    }

    #[test]
    fn a_clock_that_is_not_set_at_boot_is_not_believed() {
        let last_write = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        let mut clock = SteadyClock::new(Some(last_write), SystemTime::UNIX_EPOCH);
        assert_eq!(clock.now(SystemTime::UNIX_EPOCH, Duration::ZERO), last_write);
        // Small steps, as from the network, are followed at once.
        let set = last_write + Duration::from_secs(600);
        assert_eq!(clock.now(set, Duration::from_secs(60)), set);
    }
}
