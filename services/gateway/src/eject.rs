//! Ejection: an instance that keeps failing gets no requests for a while. One pure state machine per instance.
//!
//! Healthy → (`failures` in a row) → ejected for `base`, doubling to `max`, jittered → half-open: one request is let
//! through → back, or ejected for longer. The first answer brings an instance back, but only one that is whole clears
//! its record: until then a single failure puts it out again, for longer than before. What counts as a failure: no
//! connection, no reply, a reply that breaks off. A reply with status 500 is a reply. How many of a service may be out
//! at once is judged by the caller, who sees all.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// When instances are ejected, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EjectConfig {
    /// Failures in a row that eject an instance; 0 ejects none.
    pub failures: u32,
    /// The first ejection lasts this long, each next one twice as long.
    #[serde(with = "humantime_serde")]
    pub base: Duration,
    /// The longest ejection.
    #[serde(with = "humantime_serde")]
    pub max: Duration,
    /// At most this share of a service's instances is out at once, in percent.
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
    /// Yes.
    Yes,
    /// Yes, as the one request that tries it out; say so with [`Ejection::begin_trial`].
    Trial,
    /// No.
    No,
}

/// What one instance's last requests say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ejection {
    /// Failures since the last success.
    failures: u32,
    /// Ejections since the last success.
    streak: u32,
    /// Ejected until then.
    until: Option<Instant>,
    /// When the request that tries it out began; forgotten after `max`, in case it is never heard of again.
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

    /// Whether it is out or being tried out.
    pub(crate) fn is_ejected(&self) -> bool {
        self.until.is_some()
    }

    /// A request goes there now. It tries the instance out only where its time is over: with all ejected, requests go
    /// there before, and prove nothing.
    pub(crate) fn begin_trial(&mut self, now: Instant) {
        if self.until.is_some_and(|until| now >= until) {
            self.trial = Some(now);
        }
    }

    /// A request was answered: an instance that was out is back, and the record of one that was not is clear.
    /// `began` is when the request was sent: an answer to one sent before the ejection was over proves nothing. Says
    /// whether this ended an ejection.
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

    /// A request failed. Says for how long the instance is ejected, where this ejects it; `may_eject` is false where
    /// too many others are out.
    pub(crate) fn failure(
        &mut self,
        now: Instant,
        config: &EjectConfig,
        may_eject: bool,
        rng: &mut impl Rng,
    ) -> Option<Duration> {
        // Requests that were under way when the instance was ejected fail too; they don't make it worse.
        if self.until.is_some_and(|until| now < until) {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        let tried_out = self.until.is_some();
        let enough = config.failures > 0 && self.failures >= config.failures;
        if !(tried_out || enough && may_eject) {
            return None;
        }
        let doubled = config.base.saturating_mul(1_u32.checked_shl(self.streak.min(31)).unwrap_or(u32::MAX));
        // Up to a quarter more, so that instances that fell together don't come back together.
        let lasts = doubled.min(config.max).mul_f64(rng.random_range(1.0..1.25));
        self.streak = self.streak.saturating_add(1);
        self.trial = None;
        self.until = Some(now + lasts);
        Some(lasts)
    }
}

/// Whether one more of `total` instances may be ejected when `ejected` are out already.
pub(crate) fn may_eject(ejected: usize, total: usize, config: &EjectConfig) -> bool {
    (ejected + 1) * 100 <= total * config.max_percent as usize
}

#[cfg(test)]
mod tests;
