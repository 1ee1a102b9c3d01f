//! Self-protection: if most of a sizeable catalogue fails within one interval, the likeliest cause is the registry's
//! own network, and removing all of it would turn a small outage into a large one. Removals are then held back, for
//! a bounded time.
//!
//! The first instance to use up its attempts does so before the whole catalogue has been probed, so the threshold
//! is scaled: after half an interval of failing, half of the share is enough, but never less than the share of half
//! of `min_instances`. Held-back instances are judged again at every further miss, by then on the evidence of a full
//! interval, and an episode does not end before there is that much evidence.

use std::collections::VecDeque;
use std::time::Duration;

use super::time::Time;
use crate::config::ProtectionSettings;

/// The state of self-protection.
#[derive(Debug)]
pub(super) struct SelfProtection {
    settings: ProtectionSettings,
    /// Whether it may hold back removals: as configured, unless an operator has switched it.
    enabled: bool,
    interval: Duration,
    /// When the current episode began. Kept after its time bound, so that the same outage does not begin another.
    since: Option<Time>,
    /// When instances were removed for missed heartbeats, within the last interval.
    removals: VecDeque<Time>,
}

impl SelfProtection {
    pub(super) fn new(settings: ProtectionSettings, interval: Duration) -> Self {
        Self { enabled: settings.enabled, settings, interval, since: None, removals: VecDeque::new() }
    }

    pub(super) fn enabled(&self) -> bool {
        self.enabled
    }

    /// The operator's decision, if it differs from the configuration.
    pub(super) fn decision(&self) -> Option<bool> {
        (self.enabled != self.settings.enabled).then_some(self.enabled)
    }

    pub(super) fn set_enabled(&mut self, on: bool) {
        self.enabled = on;
        if !on {
            self.since = None;
        }
    }

    /// Until when removals are held back, if they are.
    pub(super) fn until(&self, now: Time) -> Option<Time> {
        self.since.map(|since| since + self.settings.max).filter(|until| now < *until)
    }

    /// Whether to hold back the removal of an instance that has used up its attempts. `total` and `failing` count
    /// the instances in the catalogue, including this one.
    pub(super) fn holds_back(
        &mut self,
        now: Time,
        failing_since: Time,
        total: usize,
        failing: usize,
    ) -> bool {
        let evidence = now.since(failing_since).div_duration_f64(self.interval.max(Duration::from_millis(1)));
        if !self.enabled || !self.most_fail(now, total, failing, evidence.min(1.0)) {
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now < since + self.settings.max
    }

    /// Counts an instance that was removed for missed heartbeats.
    pub(super) fn count_removal(&mut self, now: Time) {
        self.removals.push_back(now);
    }

    /// Ends the episode if a full interval's evidence shows no more than the share failing.
    pub(super) fn settle(&mut self, now: Time, total: usize, failing: usize) {
        let has_evidence = |since: Time| now.since(since) >= self.interval;
        if self.since.is_some_and(has_evidence) && !self.most_fail(now, total, failing, 1.0) {
            self.since = None;
        }
    }

    /// `evidence` is the part of an interval that has been observed, 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn most_fail(&mut self, now: Time, total: usize, failing: usize, evidence: f64) -> bool {
        while self.removals.front().is_some_and(|at| now.since(*at) >= self.interval) {
            self.removals.pop_front();
        }
        let total = total + self.removals.len();
        let failing = failing + self.removals.len();
        let least = self.settings.min_instances as f64 / 2.0;
        total >= self.settings.min_instances
            && failing as f64 > self.settings.share * (total as f64 * evidence).max(least)
    }
}
