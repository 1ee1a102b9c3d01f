//! The result of a run, for people and (serialised) for scripts. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Counts;
use super::chi::{self, ChiSquared};
use super::load::Plan;
use super::tally::Tally;
use crate::table;
use crate::text::one_line;

/// Below this, chance alone is no good explanation.
const DOUBTFUL: f64 = 0.001;
/// Columns of the longest bar.
const BAR: f64 = 30.0;

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Visits that were sent and are over.
    pub visits: u64,
    /// Visits that were asked for; more than `visits` where the run was stopped.
    pub planned: u64,
    /// Visits per second that were asked for.
    pub rate: u32,
    /// How long it took.
    pub seconds: f64,
    /// Failed visits by reason.
    pub failures: Counts,
    /// Visits by visit instance.
    pub served_by: Counts,
    /// Visits by log instance, those of the whole run that got nothing included where they are known.
    pub logged_by: Counts,
    /// Whether the catalogue told of instances that got nothing.
    pub catalog: bool,
    /// Log instances that came or went during the run, and are left out of the test.
    pub passing_in_part: BTreeSet<String>,
    /// Whether the log instances' shares look like uniform random picks.
    pub chi_squared: Option<ChiSquared>,
    /// Milliseconds of the visits that succeeded, by percentile; nothing where none did.
    pub latency_ms: BTreeMap<&'static str, f64>,
}

impl Report {
    /// `known`: ids of the log instances that passed before and after the run.
    pub fn new(plan: &Plan, tally: Tally, known: Option<&BTreeSet<String>>) -> Self {
        let mut logged_by = tally.logged_by;
        let mut passing_in_part = BTreeSet::new();
        // Without a single reply that says who logged it, there is nothing that anybody got too little of.
        if let Some(known) = known.filter(|_| !logged_by.is_empty()) {
            passing_in_part = logged_by.keys().filter(|id| !known.contains(*id)).cloned().collect();
            for id in known {
                logged_by.entry(id.clone()).or_default();
            }
        }
        let counts =
            logged_by.iter().filter(|(id, _)| !passing_in_part.contains(*id)).map(|(_, &count)| count);
        let chi_squared = chi::uniform(&counts.collect::<Vec<_>>());
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

/// The result for people.
pub fn render(report: &Report) -> String {
    let failed: u64 = report.failures.values().sum();
    let per_second = report.visits as f64 / report.seconds.max(1e-9);
    let mut text =
        format!("{} visits in {:.1} s ({per_second:.0}/s), {failed} failed", report.visits, report.seconds);
    if report.visits < report.planned {
        text += &format!("; stopped before the other {}", report.planned - report.visits);
    }
    text += "\n";
    for (why, count) in &report.failures {
        text += &format!("  {count} × {}\n", one_line(why, 200));
    }
    if report.visits > failed {
        text += "\n";
        text += &logs(report);
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

/// The shares of the log instances and what the test says of them.
fn logs(report: &Report) -> String {
    if report.logged_by.is_empty() {
        return "the replies don't say which log instance took the entries\n".to_owned();
    }
    let mut text = shares("LOG INSTANCE", &report.logged_by, &report.passing_in_part);
    if let Some(ChiSquared { statistic, degrees, p }) = report.chi_squared {
        let verdict =
            if p < DOUBTFUL { "not what uniform random picks give" } else { "as uniform random picks give" };
        let p = if p < 0.0001 { "p < 0.0001".to_owned() } else { format!("p = {p:.4}") };
        text += &format!("chi-squared {statistic:.2}, degrees of freedom {degrees}, {p}: {verdict}\n");
    }
    if !report.passing_in_part.is_empty() {
        text += "* came or went during the run; not in the test\n";
    }
    if !report.catalog {
        text += "no registry answers, so an instance that got nothing is not shown\n";
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
                "█".repeat((BAR * count as f64 / most as f64).round() as usize),
            ]
        })
        .collect();
    table::layout(&[header, "VISITS", "  SHARE", ""], &rows)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tally::{Served, Visit};
    use super::*;

    fn tally(logs: &[(&str, u64)], failures: u64) -> Tally {
        let mut tally = Tally::new().unwrap();
        for &(log, count) in logs {
            for _ in 0..count {
                let served = Served { by: Some("visit-1".to_owned()), logged_by: Some(log.to_owned()) };
                tally.add(Visit { took: Duration::from_micros(1500), outcome: Ok(served) });
            }
        }
        for _ in 0..failures {
            tally.add(Visit { took: Duration::ZERO, outcome: Err("503 Service Unavailable".to_owned()) });
        }
        tally.took = Duration::from_secs(10);
        tally
    }

    fn plan(visits: u64) -> Plan {
        Plan { url: String::new(), rate: 10, visits }
    }

    fn ids(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|&id| id.to_owned()).collect()
    }

    #[test]
    fn the_result_as_people_see_it() {
        let known = ids(&["log-a", "log-b"]);
        let report = Report::new(&plan(100), tally(&[("log-a", 50), ("log-b", 46)], 4), Some(&known));
        let text = render(&report);
        assert_eq!(
            text,
            "\
100 visits in 10.0 s (10/s), 4 failed
  4 × 503 Service Unavailable

LOG INSTANCE  VISITS    SHARE
log-a             50   52.1 %  ██████████████████████████████
log-b             46   47.9 %  ████████████████████████████
chi-squared 0.17, degrees of freedom 1, p = 0.6831: as uniform random picks give

latency in ms: p50 1.5, p90 1.5, p99 1.5, p99.9 1.5, max 1.5
"
        );
    }

    #[test]
    fn an_instance_that_got_nothing_counts_where_it_is_known() {
        let served = [("log-a", 50), ("log-b", 46)];
        let known = ids(&["log-a", "log-b", "log-c"]);
        let report = Report::new(&plan(96), tally(&served, 0), Some(&known));
        assert_eq!(report.logged_by["log-c"], 0);
        assert!(report.chi_squared.unwrap().p < 1e-9);
        assert!(render(&report).contains("p < 0.0001: not what uniform random picks give"));
        let blind = Report::new(&plan(96), tally(&served, 0), None);
        assert!(blind.chi_squared.unwrap().p > 0.5);
        assert!(render(&blind).contains("an instance that got nothing is not shown"));
    }

    #[test]
    fn an_instance_that_came_meanwhile_is_shown_and_not_tested() {
        let known = ids(&["log-a", "log-b"]);
        let report =
            Report::new(&plan(101), tally(&[("log-a", 50), ("log-b", 46), ("log-new", 5)], 0), Some(&known));
        assert_eq!(report.chi_squared.unwrap().degrees, 1);
        assert!(report.chi_squared.unwrap().p > 0.5);
        assert!(render(&report).contains("log-new *"));
    }

    #[test]
    fn runs_in_which_nothing_worked_or_nothing_is_said() {
        let failed = Report::new(&plan(5), tally(&[], 3), None);
        assert_eq!(
            render(&failed),
            "3 visits in 10.0 s (0/s), 3 failed; stopped before the other 2\n  3 × 503 Service Unavailable\n"
        );
        let mut silent = tally(&[], 0);
        silent.add(Visit { took: Duration::from_millis(1), outcome: Ok(Served::default()) });
        let text = render(&Report::new(&plan(1), silent, Some(&ids(&["log-a"]))));
        assert!(text.contains("the replies don't say which log instance took the entries"), "{text}");
        assert!(!text.contains("log-a"));
    }
}
