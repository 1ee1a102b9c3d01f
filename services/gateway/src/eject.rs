//! Ejection: an instance that keeps failing gets no requests for a while. Pure; one state machine per instance.
//!
//! Healthy → (`failures` in a row) → ejected for `base`, doubling up to `max`, with jitter → half-open: one trial
//! request → healthy, or ejected for longer. The head of a response ends the ejection, but only a complete response
//! clears the record: until then, one failure ejects the instance again, for longer. Failures are: no connection, no
//! response, a response that breaks off. A 500 is not a failure. The caller bounds how many instances of a service are
//! ejected at once.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// When instances are ejected, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct EjectConfig {
    /// Consecutive failures that eject an instance; 0 disables ejection.
    pub failures: u32,
    /// Duration of the first ejection; each further one lasts twice as long.
    #[serde(with = "humantime_serde")]
    pub base: Duration,
    /// Longest ejection.
    #[serde(with = "humantime_serde")]
    pub max: Duration,
    /// Maximum share of a service's instances that are ejected at once, in percent.
    pub max_percent: u32,
}

impl Default for EjectConfig {
    fn default() -> Self {
        Self { failures: 5, base: Duration::from_secs(1), max: Duration::from_secs(60), max_percent: 50 }
    }
}

/// Whether an instance may be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Yes,
    /// As the one trial request, to be announced by [`Ejection::begin_trial`].
    Trial,
    No,
}

/// The record of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ejection {
    /// Consecutive failures.
    failures: u32,
    /// Consecutive ejections.
    streak: u32,
    /// The end of the ejection.
    until: Option<Instant>,
    /// When the trial request began. It expires after `max`, in case its outcome is never reported.
    trial: Option<Instant>,
}

impl Ejection {
    pub(crate) fn verdict(&self, now: Instant, config: &EjectConfig) -> Verdict {
        match (self.until, self.trial) {
            (None, _) => Verdict::Yes,
            (Some(until), _) if now < until => Verdict::No,
            (Some(_), Some(began)) if now.duration_since(began) < config.max => Verdict::No,
            (Some(_), _) => Verdict::Trial,
        }
    }

    /// Whether it is ejected or on trial.
    pub(crate) fn is_ejected(&self) -> bool {
        self.until.is_some()
    }

    /// A request is about to be sent. It is a trial only once the ejection is over: if all instances are ejected,
    /// requests are sent earlier.
    pub(crate) fn begin_trial(&mut self, now: Instant) {
        if self.until.is_some_and(|until| now >= until) {
            self.trial = Some(now);
        }
    }

    /// A request that was sent at `began` was answered. Ends an ejection, or clears the record if there is none; an
    /// answer to a request from before the ejection was over does neither. Returns whether an ejection ended.
    pub(crate) fn success(&mut self, began: Instant) -> bool {
        match self.until {
            Some(until) if began < until => false,
            Some(_) => {
                (self.until, self.trial) = (None, None);
                true
            }
            None => {
                *self = Self::default();
                false
            }
        }
    }

    /// A request failed. Returns for how long the instance is ejected, if this ejects it. `may_eject` is false if too
    /// many others are ejected.
    pub(crate) fn failure(
        &mut self,
        now: Instant,
        config: &EjectConfig,
        may_eject: bool,
        rng: &mut impl Rng,
    ) -> Option<Duration> {
        // Requests that were in flight at the ejection may fail too; they don't extend it.
        if self.until.is_some_and(|until| now < until) {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        let on_trial = self.until.is_some();
        let enough = config.failures > 0 && self.failures >= config.failures;
        if !(on_trial || enough && may_eject) {
            return None;
        }
        let doubled = config.base.saturating_mul(1_u32.checked_shl(self.streak.min(31)).unwrap_or(u32::MAX));
        // Up to a quarter more, so that instances ejected together don't come back together.
        let duration = doubled.min(config.max).mul_f64(rng.random_range(1.0..1.25));
        self.streak = self.streak.saturating_add(1);
        self.trial = None;
        self.until = Some(now + duration);
        Some(duration)
    }
}

/// Whether one more of `total` instances may be ejected if `ejected` are already.
pub(crate) fn may_eject(ejected: usize, total: usize, config: &EjectConfig) -> bool {
    (ejected + 1) * 100 <= total * config.max_percent as usize
}

#[cfg(test)]
mod tests;
