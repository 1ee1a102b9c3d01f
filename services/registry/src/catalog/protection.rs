//! Self-protection: where most of a sizeable catalogue fails within one interval, the likeliest cause is the
//! registry's own network, and removing everybody would turn a small trouble into a great one. So removals are
//! held back, for a bounded time.
//!
//! The first instance to use up its attempts does so before the whole catalogue has been asked, so the evidence
//! is scaled: after a part of an interval of failing, the same part of the share must be failing too, and never
//! fewer than would do in half the smallest catalogue that counts. Held-back instances are judged again at every
//! further failure, by then on a full interval's evidence; and the episode is not over before there is such.

use std::collections::VecDeque;
use std::time::Duration;

use super::{ProtectionPolicy, Time};

/// What self-protection knows.
#[derive(Debug)]
pub(super) struct Protection {
    policy: ProtectionPolicy,
    interval: Duration,
    /// When this episode of holding back began; kept after its bound, so that it does not begin anew, until no more
    /// than the share fails.
    since: Option<Time>,
    /// When instances were removed for failing, within the last interval.
    lost: VecDeque<Time>,
}

impl Protection {
    pub(super) fn new(policy: ProtectionPolicy, interval: Duration) -> Self {
        Self { policy, interval, since: None, lost: VecDeque::new() }
    }

    pub(super) fn enabled(&self) -> bool {
        self.policy.enabled
    }

    pub(super) fn set_enabled(&mut self, on: bool) {
        self.policy.enabled = on;
        if !on {
            self.since = None;
        }
    }

    /// Until when removals are held back; `None` where they are not.
    pub(super) fn until(&self, now: Time) -> Option<Time> {
        self.since.map(|since| since + self.policy.max).filter(|until| now < *until)
    }

    /// An instance has used up its attempts: is its removal held back? `known` and `failing` count instances that
    /// are in the catalogue, this one included.
    pub(super) fn holds_back(
        &mut self,
        now: Time,
        failing_since: Time,
        known: usize,
        failing: usize,
    ) -> bool {
        let seen = now.since(failing_since).div_duration_f64(self.interval.max(Duration::from_millis(1)));
        if !self.policy.enabled || !self.most_fail(now, known, failing, seen.min(1.0)) {
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now < since + self.policy.max
    }

    /// An instance was removed for failing.
    pub(super) fn lost(&mut self, now: Time) {
        self.lost.push_back(now);
    }

    /// Ends the episode where no more than the share fails, by the evidence of an interval.
    pub(super) fn settle(&mut self, now: Time, known: usize, failing: usize) {
        let is_known = |since: Time| now.since(since) >= self.interval;
        if self.since.is_some_and(is_known) && !self.most_fail(now, known, failing, 1.0) {
            self.since = None;
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn most_fail(&mut self, now: Time, known: usize, failing: usize, seen: f64) -> bool {
        while self.lost.front().is_some_and(|at| now.since(*at) >= self.interval) {
            self.lost.pop_front();
        }
        let known = known + self.lost.len();
        let failing = failing + self.lost.len();
        let least = self.policy.min_instances as f64 / 2.0;
        known >= self.policy.min_instances
            && failing as f64 > self.policy.share * (known as f64 * seen).max(least)
    }
}
