//! The losses of one signal: a bounded queue, a count, and one log line when losses begin and one when they end. A
//! collector may be down or too slow for days, which must cost neither memory nor log lines.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use opentelemetry_sdk::error::OTelSdkResult;
use parking_lot::Mutex;

#[derive(Debug)]
pub(super) struct SignalLosses {
    pub(super) signal: &'static str,
    pub(super) url: String,
    /// Items that may be queued.
    capacity: usize,
    queued: AtomicUsize,
    lost: AtomicU64,
    logged: Mutex<Logged>,
}

/// The state that the log shows.
#[derive(Debug, Default)]
struct Logged {
    state: ExportState,
    /// The losses in the log lines so far.
    lost: u64,
    /// The losses at the last export.
    lost_before: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ExportState {
    #[default]
    Healthy,
    /// Exports succeed, but items are lost.
    Losing,
    /// The last export failed.
    Failing,
}

/// A change to be logged, with the items lost since the last such line.
#[derive(Debug, PartialEq, Eq)]
enum LossChange {
    Failing,
    Recovered(u64),
    Losing(u64),
    StoppedLosing(u64),
}

impl SignalLosses {
    pub(super) fn new(signal: &'static str, url: &str, capacity: usize) -> Self {
        Self {
            signal,
            url: url.to_owned(),
            capacity,
            queued: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            logged: Mutex::default(),
        }
    }

    /// Whether one more item fits into the queue. If not, it is counted as lost.
    pub(super) fn admit(&self) -> bool {
        let more = |queued: usize| (queued < self.capacity).then_some(queued + 1);
        let is_admitted = self.queued.fetch_update(Relaxed, Relaxed, more).is_ok();
        if !is_admitted {
            self.lost.fetch_add(1, Relaxed);
        }
        is_admitted
    }

    /// Items have left the queue.
    pub(super) fn dequeued(&self, items: usize) {
        self.queued.fetch_sub(items, Relaxed);
    }

    /// An export ended, with `lost` items lost. Called on the exporter's thread, whose log lines are not exported.
    pub(super) fn exported(&self, lost: usize, result: &OTelSdkResult) {
        self.lost.fetch_add(lost as u64, Relaxed);
        let Self { signal, url, .. } = self;
        match self.transition(result.is_err()) {
            None => {}
            Some(LossChange::Failing) => {
                let error = result.as_ref().err().map(|error| error as &dyn std::error::Error);
                tracing::warn!(
                    signal,
                    url,
                    error,
                    "can't export telemetry; it is lost until the collector accepts it"
                );
            }
            Some(LossChange::Recovered(lost)) => {
                tracing::info!(signal, url, lost, "telemetry is exported again");
            }
            Some(LossChange::Losing(lost)) => {
                tracing::warn!(
                    signal,
                    url,
                    lost,
                    "some telemetry is lost: the collector is too slow, or rejects part of it"
                );
            }
            Some(LossChange::StoppedLosing(lost)) => {
                tracing::info!(signal, url, lost, "telemetry is no longer lost");
            }
        }
    }

    /// Losing ends with an export during which nothing was lost and after which half of the queue is free. With a full
    /// queue the next losses would follow at once, with two log lines each time.
    fn transition(&self, failed: bool) -> Option<LossChange> {
        let mut logged = self.logged.lock();
        let lost = self.lost();
        let is_new = lost > std::mem::replace(&mut logged.lost_before, lost);
        let has_room = self.queued.load(Relaxed) <= self.capacity / 2;
        let before = logged.state;
        logged.state = match before {
            _ if failed => ExportState::Failing,
            // The line about the recovery shows the losses.
            ExportState::Failing => ExportState::Healthy,
            ExportState::Healthy if is_new => ExportState::Losing,
            ExportState::Losing if !is_new && has_room => ExportState::Healthy,
            _ => before,
        };
        if logged.state == before {
            return None;
        }
        if logged.state == ExportState::Failing {
            return Some(LossChange::Failing);
        }
        let unlogged = lost.saturating_sub(std::mem::replace(&mut logged.lost, lost));
        Some(match (before, logged.state) {
            (ExportState::Failing, _) => LossChange::Recovered(unlogged),
            (_, ExportState::Losing) => LossChange::Losing(unlogged),
            _ => LossChange::StoppedLosing(unlogged),
        })
    }

    /// Whether the last export failed.
    pub(super) fn is_failing(&self) -> bool {
        self.logged.lock().state == ExportState::Failing
    }

    /// The items lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// At the end of the process, logs the losses that no line has shown.
    pub(super) fn log_rest(&self) {
        let unsent = self.queued.load(Relaxed) as u64;
        let lost = (self.lost() + unsent).saturating_sub(self.logged.lock().lost);
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
    fn items_that_do_not_fit_or_are_not_exported_are_counted() {
        let losses = SignalLosses::new("traces", "http://collector", 3);
        let admitted = (0..5).filter(|_| losses.admit()).count();
        assert_eq!((admitted, losses.lost()), (3, 2));
        losses.dequeued(2);
        losses.exported(2, &Err(OTelSdkError::InternalFailure("refused".into())));
        assert_eq!(losses.lost(), 4);
        assert!(losses.admit() && losses.admit() && !losses.admit());
        losses.dequeued(3);
        losses.exported(0, &Ok(()));
        assert_eq!(losses.lost(), 5);
    }

    #[test]
    fn a_collector_that_is_too_slow_is_logged_once_and_so_is_its_recovery() {
        let losses = SignalLosses::new("traces", "http://collector", 10);
        let offer = |items| (0..items).filter(|_| losses.admit()).count();
        // A batch of 4 is exported while `offered` items come.
        let batch = |offered| {
            losses.dequeued(4);
            offer(offered);
            losses.transition(false)
        };
        assert_eq!(offer(10), 10);
        assert_eq!(batch(4), None);
        assert_eq!(batch(5), Some(LossChange::Losing(1)));
        for _ in 0..100 {
            assert_eq!(batch(5), None, "it goes on losing");
            assert_eq!(batch(4), None, "the queue is full");
        }
        assert_eq!(batch(0), None, "the queue is more than half full");
        assert_eq!(batch(3), Some(LossChange::StoppedLosing(100)));
        assert_eq!(batch(4), None);
        assert_eq!(batch(100), Some(LossChange::Losing(91)), "logged again when it begins again");
    }

    #[test]
    fn a_collector_that_fails_is_logged_once_and_its_recovery_with_the_losses() {
        let losses = SignalLosses::new("traces", "http://collector", 10);
        let batch = |failed: bool| {
            losses.lost.fetch_add(u64::from(failed), Relaxed);
            losses.transition(failed)
        };
        assert_eq!((batch(false), batch(true)), (None, Some(LossChange::Failing)));
        assert!(losses.is_failing());
        assert_eq!((batch(true), batch(true)), (None, None));
        assert_eq!(batch(false), Some(LossChange::Recovered(3)));
        assert!(!losses.is_failing());
        assert_eq!(batch(false), None);
    }
}
