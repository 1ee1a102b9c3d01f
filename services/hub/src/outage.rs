//! Outages of streams, each reported once when it begins and once when it is over. Pure.
//!
//! Streams that fail together are one outage: a platform that stops takes all of them along. One that comes back
//! at once, or whose server leaves the catalogue, is none. A server that stops accepts connections and ends them
//! at once, so a stream is back only when it has lasted for a moment.

use std::time::Duration;

/// How long a stream must be away, or back, before that is reported.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// Most names in one report.
const MAX_NAMES: usize = 3;

/// A stream that is away, or has just come back.
#[derive(Debug)]
struct Outage {
    name: String,
    reason: String,
    lost: Duration,
    back: Option<Duration>,
    reported: bool,
}

/// A report about a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutageReport {
    /// These streams are away.
    Lost {
        /// Their names in one phrase.
        names: String,
        /// Why the first of them is.
        reason: String,
    },
    /// These are back.
    Back {
        /// Their names in one phrase.
        names: String,
    },
}

/// The streams that are away. Times are those of any monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct OutageReporter {
    outages: Vec<Outage>,
}

impl OutageReporter {
    /// A stream failed to connect, or was disconnected.
    pub(crate) fn lost(&mut self, name: &str, reason: String, now: Duration) {
        match self.outages.iter_mut().find(|outage| outage.name == name) {
            Some(outage) => (outage.reason, outage.back) = (reason, None),
            None => {
                let (name, back, reported) = (name.to_owned(), None, false);
                self.outages.push(Outage { name, reason, lost: now, back, reported });
            }
        }
    }

    /// A stream is connected.
    pub(crate) fn back(&mut self, name: &str, now: Duration) {
        if let Some(outage) = self.outages.iter_mut().find(|outage| outage.name == name) {
            outage.back = Some(now);
        }
    }

    /// A stream is no longer wanted.
    pub(crate) fn forget(&mut self, name: &str) {
        self.outages.retain(|outage| outage.name != name);
    }

    /// The next report that is due.
    pub(crate) fn report(&mut self, now: Duration) -> Option<OutageReport> {
        let lasted = |since: Duration| since + GRACE <= now;
        let is_over = |outage: &Outage| outage.back.is_some_and(lasted);
        self.outages.retain(|outage| outage.reported || !is_over(outage));
        let is_away = |outage: &Outage| outage.back.is_none() && !outage.reported;
        if self.outages.iter().any(|outage| is_away(outage) && lasted(outage.lost)) {
            let away = || self.outages.iter().filter(|outage| is_away(outage));
            let reason = away().next().map(|outage| outage.reason.clone()).unwrap_or_default();
            let names = join(away());
            self.outages
                .iter_mut()
                .filter(|outage| is_away(outage))
                .for_each(|outage| outage.reported = true);
            return Some(OutageReport::Lost { names, reason });
        }
        // Those that came back together are one report, so the last of them decides.
        let settling = self.outages.iter().any(|outage| outage.back.is_some() && !is_over(outage));
        if !settling && self.outages.iter().any(is_over) {
            let names = join(self.outages.iter().filter(|outage| is_over(outage)));
            self.outages.retain(|outage| !is_over(outage));
            return Some(OutageReport::Back { names });
        }
        None
    }

    /// When a report may be due; `None` if nothing is pending.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        let pending = self.outages.iter().filter_map(|outage| match outage.back {
            Some(back) => Some(back + GRACE),
            None => (!outage.reported).then_some(outage.lost + GRACE),
        });
        pending.min()
    }
}

/// `a`, `a and b`, `a, b, c and 7 more`.
fn join<'a>(outages: impl Iterator<Item = &'a Outage>) -> String {
    let names: Vec<&str> = outages.map(|outage| outage.name.as_str()).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] if names.len() <= MAX_NAMES => format!("{} and {last}", first.join(", ")),
        _ => format!("{} and {} more", names[..MAX_NAMES].join(", "), names.len() - MAX_NAMES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn lost(names: &str) -> Option<OutageReport> {
        Some(OutageReport::Lost { names: names.to_owned(), reason: "refused".to_owned() })
    }

    fn back(names: &str) -> Option<OutageReport> {
        Some(OutageReport::Back { names: names.to_owned() })
    }

    #[test]
    fn streams_that_fail_together_are_one_line_and_one_when_they_are_back() {
        let mut outages = OutageReporter::default();
        for (name, at) in [("a", 0), ("b", 300), ("c", 600), ("d", 900)] {
            outages.lost(name, "refused".to_owned(), millis(at));
        }
        assert_eq!((outages.report(millis(999)), outages.next_at()), (None, Some(millis(1000))));
        assert_eq!(outages.report(millis(1000)), lost("a, b, c and 1 more"));
        // Attempts that fail are no news.
        for at in (1100..20_000).step_by(100) {
            outages.lost("b", "refused".to_owned(), millis(at));
            assert_eq!((outages.report(millis(at)), outages.next_at()), (None, None));
        }
        for (name, at) in [("a", 20_000), ("b", 20_500), ("c", 20_600)] {
            outages.back(name, millis(at));
        }
        outages.forget("d"); // it left the catalogue
        assert_eq!(outages.report(millis(21_000)), None);
        assert_eq!(outages.report(millis(21_600)), back("a, b and c"));
        assert_eq!((outages.report(millis(30_000)), outages.next_at()), (None, None));
    }

    #[test]
    fn a_server_that_accepts_and_ends_connections_while_it_stops_is_one_line() {
        let mut outages = OutageReporter::default();
        let mut reports = Vec::new();
        for at in (0..30_000).step_by(50) {
            if at % 400 == 0 {
                outages.lost("a", "refused".to_owned(), millis(at));
            } else if at % 400 == 200 {
                outages.back("a", millis(at));
            }
            reports.extend(outages.report(millis(at)));
        }
        assert_eq!(reports, lost("a").into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_stream_that_is_back_at_once_or_not_wanted_is_not_reported() {
        let mut outages = OutageReporter::default();
        outages.lost("a", "refused".to_owned(), millis(0));
        outages.lost("b", "refused".to_owned(), millis(0));
        outages.back("a", millis(900));
        outages.forget("b");
        outages.back("c", millis(900)); // it was never away
        assert_eq!(outages.report(millis(1500)), None);
        assert_eq!((outages.report(millis(1900)), outages.next_at()), (None, None));
        outages.lost("a", "refused".to_owned(), millis(5000));
        assert_eq!(outages.report(millis(6000)), lost("a"), "a later outage is a new one");
    }
}
