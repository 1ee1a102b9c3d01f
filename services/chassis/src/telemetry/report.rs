//! What became of the telemetry of one signal: bounded waiting, counted losses, and one line in the log when they
//! begin and one when they end. A collector may be gone for days; that must cost neither memory nor log lines.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use opentelemetry_sdk::error::OTelSdkResult;

#[derive(Debug)]
pub(super) struct Report {
    pub(super) signal: &'static str,
    pub(super) url: String,
    /// Items that may wait.
    size: usize,
    waiting: AtomicUsize,
    lost: AtomicU64,
    /// Losses that have been said.
    said: AtomicU64,
    failing: AtomicBool,
}

impl Report {
    pub(super) fn new(signal: &'static str, url: &str, size: usize) -> Self {
        Self {
            signal,
            url: url.to_owned(),
            size,
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            said: AtomicU64::new(0),
            failing: AtomicBool::new(false),
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

    /// That was sent, or it is lost. Called on the exporter's own thread, whose log lines are not exported.
    pub(super) fn sent(&self, items: usize, result: &OTelSdkResult) {
        let Self { signal, url, .. } = self;
        match result {
            Err(error) => {
                self.lost.fetch_add(items as u64, Relaxed);
                if !self.failing.swap(true, Relaxed) {
                    let error = error as &dyn std::error::Error;
                    tracing::warn!(
                        signal,
                        url,
                        error,
                        "telemetry is not taken and gets lost; the service goes on"
                    );
                }
            }
            Ok(()) => {
                let lost = self.lost();
                let new = lost - self.said.swap(lost, Relaxed);
                if self.failing.swap(false, Relaxed) {
                    tracing::info!(signal, url, lost = new, "telemetry is taken again");
                } else if new > 0 {
                    tracing::warn!(
                        signal,
                        url,
                        lost = new,
                        "more telemetry than could be sent; some got lost"
                    );
                }
            }
        }
    }

    /// Whether the last attempt to send failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Relaxed)
    }

    /// Items lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// The process ends: says what is lost and was not said yet.
    pub(super) fn end(&self) {
        let unsent = self.waiting.load(Relaxed) as u64;
        let lost = self.lost() + unsent - self.said.load(Relaxed);
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
        report.sent(3, &Ok(()));
        assert_eq!(report.lost(), 5);
    }
}
