//! Visits in the last minute. Pure: the caller has the clock.

/// Length of the window, in seconds.
const SPAN: u64 = 60;

/// Visits per second of the last minute.
#[derive(Debug, Clone)]
pub(crate) struct VisitRate {
    /// Slot `n % SPAN` has second `n` and its visits.
    seconds: [(u64, u64); SPAN as usize],
}

impl Default for VisitRate {
    fn default() -> Self {
        Self { seconds: [(0, 0); SPAN as usize] }
    }
}

impl VisitRate {
    /// Counts a visit in second `now` of any monotonic clock.
    pub(crate) fn count(&mut self, now: u64) {
        let slot = &mut self.seconds[(now % SPAN) as usize];
        if slot.0 != now {
            *slot = (now, 0);
        }
        slot.1 += 1;
    }

    /// Visits in the minute that ends with second `now`.
    pub(crate) fn per_minute(&self, now: u64) -> u64 {
        self.seconds.iter().filter(|(second, _)| *second <= now && now - second < SPAN).map(|(_, n)| n).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_older_than_a_minute_do_not_count() {
        let mut rate = VisitRate::default();
        for now in [0, 0, 30, 59] {
            rate.count(now);
        }
        assert_eq!(rate.per_minute(59), 4);
        assert_eq!(rate.per_minute(60), 2);
        rate.count(90);
        assert_eq!(rate.per_minute(90), 2);
        assert_eq!(rate.per_minute(1_000), 0);
    }
}
