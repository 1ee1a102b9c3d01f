//! Turns the request counter in an instance's heartbeats into rates. Pure; times are the registry's.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

/// How long samples are kept. Shares are taken over as much of it as all instances have.
const WINDOW: SignedDuration = SignedDuration::from_secs(60);
/// The shortest span for a rate.
const MIN_SPAN: SignedDuration = SignedDuration::from_secs(1);
/// The registry converts its clock to wall-clock time for each update, so times may go back by this much. If one
/// goes back further, the registry's clock was set.
const JITTER: SignedDuration = SignedDuration::from_secs(1);
/// The samples expire after this, or after three times the interval between the last two, if that is longer.
const MIN_TTL: SignedDuration = SignedDuration::from_secs(20);

/// The request counter of one process over the last minute.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Samples {
    list: VecDeque<(Timestamp, u64)>,
    /// When the newest arrived, by our own clock.
    received: Option<Timestamp>,
}

impl Samples {
    /// Adds the counter in the heartbeat at `at`, which arrived `now`.
    pub(super) fn add(&mut self, at: Timestamp, requests: u64, now: Timestamp) {
        match self.list.back() {
            Some(&(last, _)) if last.duration_since(at) > JITTER => self.list.clear(),
            Some(&(last, _)) if at <= last => return,
            // A counter that decreases belongs to a new process.
            Some(&(_, before)) if requests < before => self.list.clear(),
            _ => {}
        }
        self.received = Some(now);
        self.list.push_back((at, requests));
        while self.list.get(1).is_some_and(|&(second, _)| at.duration_since(second) >= WINDOW) {
            self.list.pop_front();
        }
    }

    /// Drops all samples if none has arrived for too long: they no longer describe the present.
    pub(super) fn expire(&mut self, now: Timestamp) {
        let Some(received) = self.received else { return };
        let mut newest = self.list.iter().rev().map(|(at, _)| *at);
        let interval = newest.next().zip(newest.next()).map(|(last, before)| last.duration_since(before));
        if now.duration_since(received) > interval.map_or(MIN_TTL, |interval| MIN_TTL.max(interval * 3)) {
            *self = Self::default();
        }
    }

    /// Requests per second between the last two heartbeats; `None` before the second.
    pub(super) fn rate(&self) -> Option<f64> {
        let &(last, requests) = self.list.back()?;
        let before = self.list.iter().rev().find(|(at, _)| last.duration_since(*at) >= MIN_SPAN);
        let &(from, requests_before) = before.or(self.list.front())?;
        let seconds = last.duration_since(from).as_secs_f64();
        (seconds > 0.0).then(|| requests.saturating_sub(requests_before) as f64 / seconds)
    }

    /// The times of the first and the last sample.
    pub(super) fn span(&self) -> Option<(Timestamp, Timestamp)> {
        Some((self.list.front()?.0, self.list.back()?.0))
    }

    /// The counter at a time, interpolated between two heartbeats.
    fn at(&self, time: Timestamp) -> Option<f64> {
        let after = self.list.iter().position(|(at, _)| *at >= time)?;
        let &(to, most) = self.list.get(after)?;
        let Some(&(from, least)) = after.checked_sub(1).and_then(|before| self.list.get(before)) else {
            return (to == time).then_some(most as f64);
        };
        let part = time.duration_since(from).as_secs_f64() / to.duration_since(from).as_secs_f64();
        Some(least as f64 + part * (most - least) as f64)
    }

    /// Requests between two times.
    pub(super) fn between(&self, from: Timestamp, to: Timestamp) -> Option<f64> {
        Some(self.at(to)? - self.at(from)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(list: &[(f64, u64)]) -> Samples {
        let mut samples = Samples::default();
        for &(seconds, requests) in list {
            let at = Timestamp::from_millisecond((seconds * 1000.0) as i64).unwrap();
            samples.add(at, requests, at);
        }
        samples
    }

    #[test]
    fn a_rate_is_between_two_heartbeats() {
        assert_eq!(samples(&[]).rate(), None);
        assert_eq!(samples(&[(0.0, 100)]).rate(), None);
        assert_eq!(samples(&[(0.0, 100), (5.0, 600)]).rate(), Some(100.0));
        assert_eq!(samples(&[(0.0, 100), (5.0, 600), (10.0, 600)]).rate(), Some(0.0));
    }

    #[test]
    fn frequent_heartbeats_are_combined() {
        let frequent = samples(&[(0.0, 0), (0.2, 100), (0.4, 100), (0.8, 100), (1.0, 100), (1.2, 160)]);
        assert_eq!(frequent.rate(), Some(60.0));
    }

    #[test]
    fn a_counter_that_decreases_starts_over_and_late_samples_are_ignored() {
        assert_eq!(samples(&[(0.0, 100), (5.0, 20)]).rate(), None);
        assert_eq!(samples(&[(0.0, 100), (5.0, 20), (10.0, 70)]).rate(), Some(10.0));
        assert_eq!(samples(&[(5.0, 100), (5.0, 900), (4.0, 900)]).rate(), None);
    }

    #[test]
    fn counters_are_interpolated() {
        let moment = |seconds| Timestamp::from_second(seconds).unwrap();
        let counter = samples(&[(0.0, 0), (5.0, 500), (10.0, 500)]);
        assert_eq!(counter.between(moment(0), moment(10)), Some(500.0));
        assert_eq!(counter.between(moment(1), moment(4)), Some(300.0));
        assert_eq!(counter.between(moment(4), moment(7)), Some(100.0));
        assert_eq!(counter.between(moment(-1), moment(7)), None);
        assert_eq!(counter.between(moment(1), moment(11)), None);
        assert_eq!(Samples::default().between(moment(1), moment(1)), None);
    }

    #[test]
    fn a_clock_that_was_set_back_starts_over() {
        assert_eq!(samples(&[(3600.0, 100), (3605.0, 200), (0.0, 300), (5.0, 400)]).rate(), Some(20.0));
    }

    #[test]
    fn samples_expire() {
        let moment = |seconds| Timestamp::from_second(seconds).unwrap();
        let mut usual = samples(&[(0.0, 0), (5.0, 500)]);
        usual.expire(moment(25));
        assert_eq!(usual.rate(), Some(100.0));
        usual.expire(moment(26));
        assert_eq!(usual.rate(), None);
        let mut slow = samples(&[(0.0, 0), (60.0, 600)]);
        slow.expire(moment(240));
        assert_eq!(slow.rate(), Some(10.0));
        slow.expire(moment(241));
        assert_eq!(slow.rate(), None);
    }

    #[test]
    fn a_minute_is_kept() {
        let list: Vec<_> = (0..100).map(|n| (f64::from(n) * 5.0, n as u64 * 50)).collect();
        let samples = samples(&list);
        assert_eq!(samples.list.len(), 13);
        assert_eq!(samples.span().map(|(from, to)| to.duration_since(from)), Some(WINDOW));
    }
}
