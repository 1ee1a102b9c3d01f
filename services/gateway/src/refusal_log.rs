//! The access log's lines for requests that were refused before they could be read: a malformed or slow head, one
//! connection too many. A flood of them is summed up in one line per second.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hubspoke_chassis::rate_limit::{RateLimit, RateState};
use parking_lot::Mutex;

/// Lines per second.
const LINES: u32 = 50;
/// Time between two lines that sum up the others.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(1);

/// A request that was refused unread, or a connection that was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal<'a> {
    pub(crate) client: IpAddr,
    /// `None` if it got no answer.
    pub(crate) status: Option<u16>,
    pub(crate) cause: &'static str,
    pub(crate) detail: Option<&'a str>,
}

/// Writes refusals to the access log, a bounded number per second.
pub(crate) struct RefusalLog {
    limit: Option<RateLimit>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rate: RateState,
    /// Refusals without a line of their own.
    omitted: u64,
    summed_up: Option<Instant>,
}

impl RefusalLog {
    pub(crate) fn new() -> Self {
        Self { limit: RateLimit::new(LINES, LINES), state: Mutex::default() }
    }

    pub(crate) fn log(&self, refusal: Refusal<'_>, now: Instant) {
        if !self.admit(now) {
            return;
        }
        tracing::info!(
            target: "access",
            client = %refusal.client,
            status = refusal.status,
            cause = refusal.cause,
            detail = refusal.detail,
            "request refused"
        );
    }

    /// Sums up the refusals that got no line, if there are any.
    pub(crate) fn sum_up(&self, now: Instant) {
        if let Some(count) = self.take_omitted(now) {
            tracing::info!(target: "access", count, "more requests refused");
        }
    }

    /// Whether a refusal gets its own line; otherwise it is counted.
    fn admit(&self, now: Instant) -> bool {
        let Some(limit) = &self.limit else { return true };
        let mut state = self.state.lock();
        let admitted = limit.admit(&mut state.rate, now);
        state.omitted += u64::from(!admitted);
        admitted
    }

    fn take_omitted(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        let is_due = state.summed_up.is_none_or(|at| now.saturating_duration_since(at) >= SUMMARY_INTERVAL);
        if state.omitted == 0 || !is_due {
            return None;
        }
        state.summed_up = Some(now);
        Some(std::mem::take(&mut state.omitted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_summed_up() {
        let log = RefusalLog::new();
        let now = Instant::now();
        assert_eq!((0..1000).filter(|_| log.admit(now)).count(), 50);
        assert_eq!((log.take_omitted(now), log.take_omitted(now)), (Some(950), None));
        assert_eq!((0..5).filter(|_| log.admit(now)).count(), 0);
        assert_eq!(log.take_omitted(now), None, "one summary per second");
        let later = now + SUMMARY_INTERVAL;
        assert_eq!((log.take_omitted(later), log.admit(later)), (Some(5), true));
    }
}
