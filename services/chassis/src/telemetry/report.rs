//! What became of the telemetry of one signal: bounded waiting, counted losses, and one line in the log when they
//! begin and one when they end. A collector may be gone or too slow for days; that must cost neither memory nor log
//! lines.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use opentelemetry_sdk::error::OTelSdkResult;

#[derive(Debug)]
pub(super) struct Report {
    pub(super) signal: &'static str,
    pub(super) url: String,
    /// Items that may wait.
    size: usize,
    waiting: AtomicUsize,
    lost: AtomicU64,
    told: Mutex<Told>,
}

/// What the log has been told.
#[derive(Debug, Default)]
struct Told {
    trouble: Trouble,
    /// Losses that have been said.
    said: u64,
    /// Losses when the last batch had been sent.
    seen: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    #[default]
    None,
    /// The collector takes what it gets, but there is more than it takes.
    Losing,
    /// The last batch was not taken.
    Failing,
}

/// What the log is to be told next.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Failing,
    /// The collector takes telemetry again, of which so much was lost that was not said before.
    Taken(u64),
    Losing(u64),
    NoLongerLosing(u64),
}

impl Report {
    pub(super) fn new(signal: &'static str, url: &str, size: usize) -> Self {
        Self {
            signal,
            url: url.to_owned(),
            size,
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            told: Mutex::default(),
        }
    }

    /// Whether one more item may wait. One that may not is lost.
    pub(super) fn admit(&self) -> bool {
        let more = |waiting: usize| (waiting < self.size).then_some(waiting + 1);
        let admitted = self.waiting.fetch_update(Relaxed, Relaxed, more).is_ok();
        if !admitted {
            self.lost.fetch_add(1, Relaxed);
        }
        admitted
    }

    /// Some of what waited is being sent: there is room again.
    pub(super) fn taken(&self, items: usize) {
        self.waiting.fetch_sub(items, Relaxed);
    }

    /// A batch was sent, of which so many items are lost. Called on the exporter's own thread, whose log lines are not
    /// exported.
    pub(super) fn sent(&self, lost: usize, result: &OTelSdkResult) {
        self.lost.fetch_add(lost as u64, Relaxed);
        let Self { signal, url, .. } = self;
        match self.next_line(result.is_err()) {
            None => {}
            Some(Line::Failing) => {
                let error = result.as_ref().err().map(|error| error as &dyn std::error::Error);
                tracing::warn!(
                    signal,
                    url,
                    error,
                    "telemetry is not taken and gets lost; the service goes on"
                );
            }
            Some(Line::Taken(lost)) => tracing::info!(signal, url, lost, "telemetry is taken again"),
            Some(Line::Losing(lost)) => {
                tracing::warn!(signal, url, lost, "more telemetry than is taken; some gets lost");
            }
            Some(Line::NoLongerLosing(lost)) => {
                tracing::info!(signal, url, lost, "all telemetry is taken again");
            }
        }
    }

    /// Losing ends with a batch during which nothing new was lost and after which there is room: a queue at its brim
    /// would begin to lose with the next batch, and so on with two lines each time.
    fn next_line(&self, failed: bool) -> Option<Line> {
        let mut told = self.told();
        let lost = self.lost();
        let is_new = lost > std::mem::replace(&mut told.seen, lost);
        let has_room = self.waiting.load(Relaxed) <= self.size / 2;
        let before = told.trouble;
        told.trouble = match before {
            _ if failed => Trouble::Failing,
            // How much was lost meanwhile is said with this line.
            Trouble::Failing => Trouble::None,
            Trouble::None if is_new => Trouble::Losing,
            Trouble::Losing if !is_new && has_room => Trouble::None,
            _ => before,
        };
        if told.trouble == before {
            return None;
        }
        if told.trouble == Trouble::Failing {
            return Some(Line::Failing);
        }
        let unsaid = lost.saturating_sub(std::mem::replace(&mut told.said, lost));
        Some(match (before, told.trouble) {
            (Trouble::Failing, _) => Line::Taken(unsaid),
            (_, Trouble::Losing) => Line::Losing(unsaid),
            _ => Line::NoLongerLosing(unsaid),
        })
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last attempt to send failed.
    pub(super) fn is_failing(&self) -> bool {
        self.told().trouble == Trouble::Failing
    }

    /// Items lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// The process ends: says what is lost and was not said yet.
    pub(super) fn end(&self) {
        let unsent = self.waiting.load(Relaxed) as u64;
        let lost = (self.lost() + unsent).saturating_sub(self.told().said);
        if lost > 0 {
            tracing::warn!(signal = self.signal, url = self.url, lost, unsent, "telemetry was lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::error::OTelSdkError;

    use super::*;

    #[test]
    fn what_finds_no_room_or_no_taker_is_counted() {
        let report = Report::new("traces", "http://collector", 3);
        let admitted = (0..5).filter(|_| report.admit()).count();
        assert_eq!((admitted, report.lost()), (3, 2));
        report.taken(2);
        report.sent(2, &Err(OTelSdkError::InternalFailure("refused".into())));
        assert_eq!(report.lost(), 4);
        assert!(report.admit() && report.admit() && !report.admit());
        report.taken(3);
        report.sent(0, &Ok(()));
        assert_eq!(report.lost(), 5);
    }

    #[test]
    fn a_collector_that_is_too_slow_is_said_once_and_once_that_it_keeps_up_again() {
        let report = Report::new("traces", "http://collector", 10);
        let offer = |items| (0..items).filter(|_| report.admit()).count();
        // A batch of 4 is under way while `offered` items come.
        let batch = |offered| {
            report.taken(4);
            offer(offered);
            report.next_line(false)
        };
        assert_eq!(offer(10), 10);
        assert_eq!(batch(4), None);
        assert_eq!(batch(5), Some(Line::Losing(1)));
        for _ in 0..100 {
            assert_eq!(batch(5), None, "it goes on losing");
            assert_eq!(batch(4), None, "at the brim");
        }
        assert_eq!(batch(0), None, "there is hardly room");
        assert_eq!(batch(3), Some(Line::NoLongerLosing(100)));
        assert_eq!(batch(4), None);
        assert_eq!(batch(100), Some(Line::Losing(91)), "said again where it begins again");
    }

    #[test]
    fn a_collector_that_fails_is_said_once_and_what_got_lost_when_it_is_back() {
        let report = Report::new("traces", "http://collector", 10);
        let batch = |failed: bool| {
            report.lost.fetch_add(u64::from(failed), Relaxed);
            report.next_line(failed)
        };
        assert_eq!((batch(false), batch(true)), (None, Some(Line::Failing)));
        assert!(report.is_failing());
        assert_eq!((batch(true), batch(true)), (None, None));
        assert_eq!(batch(false), Some(Line::Taken(3)));
        assert!(!report.is_failing());
        assert_eq!(batch(false), None);
    }
}
