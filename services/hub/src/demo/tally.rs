//! Counts the results of visits. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest latency that the histogram can hold, in microseconds: far beyond what a visit may take.
const MAX_LATENCY: u64 = 3_600_000_000;
/// Different failures that are counted apart.
const MAX_FAILURES: usize = 20;
/// Different instances that are counted apart.
const MAX_INSTANCES: usize = 10_000;
/// The name under which the rest is counted.
const OTHER: &str = "other failures";

/// Counts by name.
pub(super) type Counts = BTreeMap<String, u64>;

/// The result of one visit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VisitResult {
    /// From when the visit was due to the last byte of the response.
    pub(super) latency: Duration,
    /// The instances that served it, or why it failed.
    pub(super) outcome: Result<ServedBy, String>,
}

/// The ids of the instances that served a visit, as far as the response names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ServedBy {
    pub(super) visit: Option<String>,
    /// The log instance that took the entry.
    pub(super) log: Option<String>,
}

/// The visits so far.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    /// Microseconds of the visits that succeeded.
    pub(super) latency: Histogram<u64>,
    /// Visits by visit instance.
    pub(super) served_by: Counts,
    /// Visits by log instance.
    pub(super) logged_by: Counts,
    /// Visits by why they failed.
    pub(super) failures: Counts,
    /// How long the run took, once it has ended.
    pub(super) took: Duration,
}

impl Tally {
    /// # Errors
    /// If the histogram refuses its bounds, which are constant.
    pub(super) fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            // A fixed range, because a histogram that resizes does not saturate.
            latency: Histogram::new_with_bounds(1, MAX_LATENCY, 3)?,
            served_by: Counts::new(),
            logged_by: Counts::new(),
            failures: Counts::new(),
            took: Duration::ZERO,
        })
    }

    /// Counts one visit.
    pub(super) fn add(&mut self, visit: VisitResult) {
        match visit.outcome {
            Ok(served) => {
                self.latency.saturating_record(u64::try_from(visit.latency.as_micros()).unwrap_or(u64::MAX));
                count(&mut self.served_by, served.visit, MAX_INSTANCES);
                count(&mut self.logged_by, served.log, MAX_INSTANCES);
            }
            Err(why) => count(&mut self.failures, Some(why), MAX_FAILURES),
        }
    }

    /// Visits that have a result.
    pub(super) fn done(&self) -> u64 {
        self.latency.len() + self.failed()
    }

    /// Visits that failed.
    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// Counts under `name`, in bounded memory: a server may send any number of names.
fn count(counts: &mut Counts, name: Option<String>, most: usize) {
    let Some(name) = name else { return };
    let known = counts.len() < most || counts.contains_key(&name);
    *counts.entry(if known { name } else { OTHER.to_owned() }).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_are_counted_by_instance_and_by_failure() {
        let mut tally = Tally::new().unwrap();
        let served = |visit: &str, log: &str| {
            Ok(ServedBy { visit: Some(visit.to_owned()), log: Some(log.to_owned()) })
        };
        let outcomes =
            [served("v1", "l1"), served("v1", "l2"), Ok(ServedBy::default()), Err("502".to_owned())];
        for (outcome, millis) in outcomes.into_iter().zip([1, 2, 3456, 9999]) {
            tally.add(VisitResult { latency: Duration::from_millis(millis), outcome });
        }
        assert_eq!((tally.done(), tally.failed()), (4, 1));
        assert_eq!(tally.served_by, [("v1".to_owned(), 2)].into());
        assert_eq!(tally.logged_by, [("l1".to_owned(), 1), ("l2".to_owned(), 1)].into());
        let (median, max) = (tally.latency.value_at_quantile(0.5), tally.latency.max());
        assert!(median.abs_diff(2000) <= 2 && max.abs_diff(3_456_000) <= 3456, "{median}, {max}");
    }

    #[test]
    fn failures_are_counted_in_bounded_memory() {
        let mut tally = Tally::new().unwrap();
        for n in 0..1000 {
            tally.add(VisitResult { latency: Duration::ZERO, outcome: Err(n.to_string()) });
        }
        assert_eq!((tally.failed(), tally.failures.len()), (1000, MAX_FAILURES + 1));
    }
}
