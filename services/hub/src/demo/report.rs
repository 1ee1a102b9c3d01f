//! The report of a run, as text and (serialized) as JSON. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::chi_squared::{ChiSquared, test_uniform};
use super::load::LoadPlan;
use super::tally::{Counts, Tally};
use crate::table;
use crate::text::one_line;

/// Below this probability, chance alone is not a good explanation.
const SIGNIFICANT: f64 = 0.001;
/// Columns of the longest bar.
const MAX_BAR: f64 = 30.0;

/// The report of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DemoReport {
    /// Visits that were sent.
    pub(super) visits: u64,
    /// Visits that were to be sent; more than `visits` if the run was stopped.
    pub(super) planned: u64,
    /// Visits per second that were to be sent.
    pub(super) rate: u32,
    /// How long the run took.
    pub(super) seconds: f64,
    /// Failed visits by reason.
    pub(super) failures: Counts,
    /// Visits by visit instance.
    pub(super) served_by: Counts,
    /// Visits by log instance, with 0 for those that passed during the whole run and got nothing.
    pub(super) logged_by: Counts,
    /// Whether the catalogue was read, so that instances that got nothing are known.
    pub(super) catalog: bool,
    /// Log instances that came or went during the run; they are not part of the test.
    pub(super) passing_in_part: BTreeSet<String>,
    /// Whether the log instances' shares look like uniform random picks.
    pub(super) chi_squared: Option<ChiSquared>,
    /// Latency of the visits that succeeded, in milliseconds by percentile; empty if none did.
    pub(super) latency_ms: BTreeMap<&'static str, f64>,
}

impl DemoReport {
    /// `known` are the ids of the log instances that passed before and after the run.
    pub(super) fn new(plan: &LoadPlan, tally: Tally, known: Option<&BTreeSet<String>>) -> Self {
        let mut logged_by = tally.logged_by;
        let mut passing_in_part = BTreeSet::new();
        // If no response names a log instance, there are no shares to compare.
        if let Some(known) = known.filter(|_| !logged_by.is_empty()) {
            passing_in_part = logged_by.keys().filter(|id| !known.contains(*id)).cloned().collect();
            for id in known {
                logged_by.entry(id.clone()).or_default();
            }
        }
        let counts =
            logged_by.iter().filter(|(id, _)| !passing_in_part.contains(*id)).map(|(_, &count)| count);
        let chi_squared = test_uniform(&counts.collect::<Vec<_>>());
        let mut latency_ms = BTreeMap::new();
        if !tally.latency.is_empty() {
            let at = |quantile| tally.latency.value_at_quantile(quantile) as f64 / 1000.0;
            latency_ms =
                [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)].map(|(n, q)| (n, at(q))).into();
            latency_ms.insert("max", tally.latency.max() as f64 / 1000.0);
        }
        Self {
            visits: tally.latency.len() + tally.failures.values().sum::<u64>(),
            planned: plan.visits,
            rate: plan.rate,
            seconds: tally.took.as_secs_f64(),
            failures: tally.failures,
            served_by: tally.served_by,
            logged_by,
            catalog: known.is_some(),
            passing_in_part,
            chi_squared,
            latency_ms,
        }
    }
}

/// The report as text.
pub(super) fn render(report: &DemoReport) -> String {
    let failed: u64 = report.failures.values().sum();
    let per_second = report.visits as f64 / report.seconds.max(1e-9);
    let mut text =
        format!("{} visits in {:.1} s ({per_second:.0}/s), {failed} failed", report.visits, report.seconds);
    if report.visits < report.planned {
        text += &format!("; stopped early, {} not sent", report.planned - report.visits);
    }
    text += "\n";
    for (failure, count) in &report.failures {
        text += &format!("  {count} × {}\n", one_line(failure, 200));
    }
    if report.visits > failed {
        text += "\n";
        text += &log_shares(report);
    }
    if report.served_by.len() > 1 {
        text += "\n";
        text += &shares("VISIT INSTANCE", &report.served_by, &BTreeSet::new());
    }
    if !report.latency_ms.is_empty() {
        let values: Vec<_> = ["p50", "p90", "p99", "p99.9", "max"]
            .iter()
            .filter_map(|name| Some(format!("{name} {:.1}", report.latency_ms.get(name)?)))
            .collect();
        text += &format!("\nlatency in ms: {}\n", values.join(", "));
    }
    text
}

/// The shares of the log instances and the result of the test.
fn log_shares(report: &DemoReport) -> String {
    if report.logged_by.is_empty() {
        return "the responses don't say which log instances took the entries\n".to_owned();
    }
    let mut text = shares("LOG INSTANCE", &report.logged_by, &report.passing_in_part);
    if let Some(ChiSquared { statistic, degrees, p }) = report.chi_squared {
        let verdict =
            if p < SIGNIFICANT { "not uniform random picks" } else { "consistent with uniform random picks" };
        let p = if p < 0.0001 { "p < 0.0001".to_owned() } else { format!("p = {p:.4}") };
        text += &format!("chi-squared {statistic:.2}, degrees of freedom {degrees}, {p}: {verdict}\n");
    }
    if !report.passing_in_part.is_empty() {
        text += "* came or went during the run; not part of the test\n";
    }
    if !report.catalog {
        text += "the registry can't be reached, so instances that got nothing are not shown\n";
    }
    text
}

fn shares(header: &str, counts: &Counts, in_part: &BTreeSet<String>) -> String {
    let total: u64 = counts.values().sum();
    let most = counts.values().copied().max().unwrap_or(0).max(1);
    let rows: Vec<_> = counts
        .iter()
        .map(|(id, &count)| {
            let mark = if in_part.contains(id) { " *" } else { "" };
            vec![
                one_line(id, 60) + mark,
                format!("{count:>6}"),
                format!("{:>5.1} %", 100.0 * count as f64 / total.max(1) as f64),
                "█".repeat((MAX_BAR * count as f64 / most as f64).round() as usize),
            ]
        })
        .collect();
    table::layout(&[header, "VISITS", "  SHARE", ""], &rows)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tally::{ServedBy, VisitResult};
    use super::*;

    fn tally(logs: &[(&str, u64)], failures: u64) -> Tally {
        let mut tally = Tally::new().unwrap();
        for &(log, count) in logs {
            for _ in 0..count {
                let served = ServedBy { visit: Some("visit-1".to_owned()), log: Some(log.to_owned()) };
                tally.add(VisitResult { latency: Duration::from_micros(1500), outcome: Ok(served) });
            }
        }
        for _ in 0..failures {
            tally.add(VisitResult {
                latency: Duration::ZERO,
                outcome: Err("503 Service Unavailable".to_owned()),
            });
        }
        tally.took = Duration::from_secs(10);
        tally
    }

    fn plan(visits: u64) -> LoadPlan {
        LoadPlan { url: String::new(), rate: 10, visits }
    }

    fn ids(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|&id| id.to_owned()).collect()
    }

    #[test]
    fn the_report_as_text() {
        let known = ids(&["log-a", "log-b"]);
        let report = DemoReport::new(&plan(100), tally(&[("log-a", 50), ("log-b", 46)], 4), Some(&known));
        let text = render(&report);
        assert_eq!(
            text,
            "\
100 visits in 10.0 s (10/s), 4 failed
  4 × 503 Service Unavailable

LOG INSTANCE  VISITS    SHARE
log-a             50   52.1 %  ██████████████████████████████
log-b             46   47.9 %  ████████████████████████████
chi-squared 0.17, degrees of freedom 1, p = 0.6831: consistent with uniform random picks

latency in ms: p50 1.5, p90 1.5, p99 1.5, p99.9 1.5, max 1.5
"
        );
    }

    #[test]
    fn a_known_instance_that_got_nothing_counts() {
        let served = [("log-a", 50), ("log-b", 46)];
        let known = ids(&["log-a", "log-b", "log-c"]);
        let report = DemoReport::new(&plan(96), tally(&served, 0), Some(&known));
        assert_eq!(report.logged_by["log-c"], 0);
        assert!(report.chi_squared.unwrap().p < 1e-9);
        assert!(render(&report).contains("p < 0.0001: not uniform random picks"));
        let blind = DemoReport::new(&plan(96), tally(&served, 0), None);
        assert!(blind.chi_squared.unwrap().p > 0.5);
        assert!(render(&blind).contains("instances that got nothing are not shown"));
    }

    #[test]
    fn an_instance_that_came_during_the_run_is_shown_but_not_tested() {
        let known = ids(&["log-a", "log-b"]);
        let report = DemoReport::new(
            &plan(101),
            tally(&[("log-a", 50), ("log-b", 46), ("log-new", 5)], 0),
            Some(&known),
        );
        assert_eq!(report.chi_squared.unwrap().degrees, 1);
        assert!(report.chi_squared.unwrap().p > 0.5);
        assert!(render(&report).contains("log-new *"));
    }

    #[test]
    fn runs_where_every_visit_failed_or_no_instance_is_named() {
        let failed = DemoReport::new(&plan(5), tally(&[], 3), None);
        assert_eq!(
            render(&failed),
            "3 visits in 10.0 s (0/s), 3 failed; stopped early, 2 not sent\n  3 × 503 Service Unavailable\n"
        );
        let mut silent = tally(&[], 0);
        silent.add(VisitResult { latency: Duration::from_millis(1), outcome: Ok(ServedBy::default()) });
        let text = render(&DemoReport::new(&plan(1), silent, Some(&ids(&["log-a"]))));
        assert!(text.contains("the responses don't say which log instances took the entries"), "{text}");
        assert!(!text.contains("log-a"));
    }
}
