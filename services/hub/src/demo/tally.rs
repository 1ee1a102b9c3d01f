//! What became of the visits. Pure.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::Counts;

/// Longest latency that is told apart, in microseconds: far beyond what a visit may take.
const MAX_LATENCY: u64 = 3_600_000_000;
/// Different failures that are told apart; the rest count as one more.
const MAX_FAILURES: usize = 20;
/// Under which name those are counted.
const OTHER: &str = "other failures";
/// Different instances that are told apart.
const MAX_INSTANCES: usize = 10_000;

/// One visit that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// From when it was due to the last byte of the reply.
    pub took: Duration,
    /// Who served it, or why it failed.
    pub outcome: Result<Served, String>,
}

/// Who served a visit, as far as the reply says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// The visit instance.
    pub by: Option<String>,
    /// The log instance that took the entry.
    pub logged_by: Option<String>,
}

/// The visits so far.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Microseconds of the visits that succeeded.
    pub latency: Histogram<u64>,
    /// Visits by visit instance.
    pub served_by: Counts,
    /// Visits by log instance.
    pub logged_by: Counts,
    /// Visits by why they failed.
    pub failures: Counts,
    /// How long the run took, once it is over.
    pub took: Duration,
}

impl Tally {
    /// No visits yet.
    ///
    /// # Errors
    /// Never with these constants; the histogram's own check.
    pub fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            // Of a fixed range: what resizes itself does not when it saturates.
            latency: Histogram::new_with_bounds(1, MAX_LATENCY, 3)?,
            served_by: Counts::new(),
            logged_by: Counts::new(),
            failures: Counts::new(),
            took: Duration::ZERO,
        })
    }

    /// Counts one visit.
    pub fn add(&mut self, visit: Visit) {
        match visit.outcome {
            Ok(served) => {
                self.latency.saturating_record(u64::try_from(visit.took.as_micros()).unwrap_or(u64::MAX));
                count(&mut self.served_by, served.by, MAX_INSTANCES);
                count(&mut self.logged_by, served.logged_by, MAX_INSTANCES);
            }
            Err(why) => count(&mut self.failures, Some(why), MAX_FAILURES),
        }
    }

    /// Visits that are over.
    pub fn done(&self) -> u64 {
        self.latency.len() + self.failed()
    }

    /// Visits that failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// Counts under a name, in bounded memory whatever names a server invents.
fn count(counts: &mut Counts, name: Option<String>, most: usize) {
    let Some(name) = name else { return };
    let known = counts.len() < most || counts.contains_key(&name);
    *counts.entry(if known { name } else { OTHER.to_owned() }).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_are_counted_by_who_served_them_and_why_they_failed() {
        let mut tally = Tally::new().unwrap();
        let served =
            |by: &str, log: &str| Ok(Served { by: Some(by.to_owned()), logged_by: Some(log.to_owned()) });
        let outcomes = [served("v1", "l1"), served("v1", "l2"), Ok(Served::default()), Err("502".to_owned())];
        for (outcome, millis) in outcomes.into_iter().zip([1, 2, 3456, 9999]) {
            tally.add(Visit { took: Duration::from_millis(millis), outcome });
        }
        assert_eq!((tally.done(), tally.failed()), (4, 1));
        assert_eq!(tally.served_by, [("v1".to_owned(), 2)].into());
        assert_eq!(tally.logged_by, [("l1".to_owned(), 1), ("l2".to_owned(), 1)].into());
        let (median, max) = (tally.latency.value_at_quantile(0.5), tally.latency.max());
        assert!(median.abs_diff(2000) <= 2 && max.abs_diff(3_456_000) <= 3456, "{median}, {max}");
    }

    #[test]
    fn endless_kinds_of_failure_are_bounded() {
        let mut tally = Tally::new().unwrap();
        for n in 0..1000 {
            tally.add(Visit { took: Duration::ZERO, outcome: Err(n.to_string()) });
        }
        assert_eq!((tally.failed(), tally.failures.len()), (1000, MAX_FAILURES + 1));
    }
}
