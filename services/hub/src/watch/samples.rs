//! From an instance's request counter, as heartbeats tell it, to rates. Pure; times are the registry's.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

/// Samples are kept for so long; shares are taken over as much of it as all instances have.
const WINDOW: SignedDuration = SignedDuration::from_secs(60);
/// A rate is taken over at least this.
const SHORTEST: SignedDuration = SignedDuration::from_secs(1);

/// The registry computes times of day anew each time, so they may go back a little; where they go back further, its
/// clock was set.
const JITTER: SignedDuration = SignedDuration::from_secs(1);
/// What was last heard holds for so long, or for three times as long as it was since the time before.
const HOLDS: SignedDuration = SignedDuration::from_secs(20);

/// What the last heartbeats said of one start of an instance.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Samples {
    list: VecDeque<(Timestamp, u64)>,
    /// When the newest came, by our own clock.
    came: Option<Timestamp>,
}

impl Samples {
    /// Takes in what a heartbeat said, which came `now`.
    pub(super) fn add(&mut self, at: Timestamp, requests: u64, now: Timestamp) {
        match self.list.back() {
            Some(&(last, _)) if last.duration_since(at) > JITTER => self.list.clear(),
            Some(&(last, _)) if at <= last => return,
            // A counter that goes back is another one's.
            Some(&(_, before)) if requests < before => self.list.clear(),
            _ => {}
        }
        self.came = Some(now);
        self.list.push_back((at, requests));
        while self.list.get(1).is_some_and(|&(second, _)| at.duration_since(second) >= WINDOW) {
            self.list.pop_front();
        }
    }

    /// Forgets what was heard where nothing came for too long: it says nothing of how things are.
    pub(super) fn age(&mut self, now: Timestamp) {
        let Some(came) = self.came else { return };
        let mut newest = self.list.iter().rev().map(|(at, _)| *at);
        let usual = newest.next().zip(newest.next()).map(|(last, before)| last.duration_since(before));
        if now.duration_since(came) > usual.map_or(HOLDS, |usual| HOLDS.max(usual * 3)) {
            *self = Self::default();
        }
    }

    /// Requests per second between the last two heartbeats; nothing before the second.
    pub(super) fn rate(&self) -> Option<f64> {
        let &(last, _) = self.list.back()?;
        let before = self.list.iter().rev().find(|(at, _)| last.duration_since(*at) >= SHORTEST);
        self.since(before.or(self.list.front())?)
    }

    /// The times that the counter is known for.
    pub(super) fn span(&self) -> Option<(Timestamp, Timestamp)> {
        Some((self.list.front()?.0, self.list.back()?.0))
    }

    /// The counter at a time, as even as it may have been between two heartbeats.
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

    fn since(&self, &(at, requests): &(Timestamp, u64)) -> Option<f64> {
        let &(last, now) = self.list.back()?;
        let seconds = last.duration_since(at).as_secs_f64();
        (seconds > 0.0).then(|| now.saturating_sub(requests) as f64 / seconds)
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
    fn quick_heartbeats_are_taken_together() {
        let quick = samples(&[(0.0, 0), (0.2, 100), (0.4, 100), (0.8, 100), (1.0, 100), (1.2, 160)]);
        assert_eq!(quick.rate(), Some(60.0));
    }

    #[test]
    fn a_counter_that_goes_back_begins_anew_and_late_news_are_ignored() {
        assert_eq!(samples(&[(0.0, 100), (5.0, 20)]).rate(), None);
        assert_eq!(samples(&[(0.0, 100), (5.0, 20), (10.0, 70)]).rate(), Some(10.0));
        assert_eq!(samples(&[(5.0, 100), (5.0, 900), (4.0, 900)]).rate(), None);
    }

    #[test]
    fn counters_are_compared_over_the_same_time() {
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
    fn a_clock_that_was_set_back_begins_anew() {
        assert_eq!(samples(&[(3600.0, 100), (3605.0, 200), (0.0, 300), (5.0, 400)]).rate(), Some(20.0));
    }

    #[test]
    fn what_was_heard_does_not_hold_for_ever() {
        let moment = |seconds| Timestamp::from_second(seconds).unwrap();
        let mut usual = samples(&[(0.0, 0), (5.0, 500)]);
        usual.age(moment(25));
        assert_eq!(usual.rate(), Some(100.0));
        usual.age(moment(26));
        assert_eq!(usual.rate(), None);
        let mut slow = samples(&[(0.0, 0), (60.0, 600)]);
        slow.age(moment(240));
        assert_eq!(slow.rate(), Some(10.0));
        slow.age(moment(241));
        assert_eq!(slow.rate(), None);
    }

    #[test]
    fn a_minute_is_kept() {
        let list: Vec<_> = (0..100).map(|n| (f64::from(n) * 5.0, n as u64 * 50)).collect();
        let kept = samples(&list);
        assert_eq!(kept.list.len(), 13);
        assert_eq!(kept.span().map(|(from, to)| to.duration_since(from)), Some(WINDOW));
    }
}
