//! Retention: removes the oldest closed segments by age and by total size.
//!
//! What is removed is lost, so age counts by a [`SteadyClock`](super::clock::SteadyClock), and a segment is as young as
//! any evidence shows: a wrong clock keeps entries for longer, but removes none early.

use std::io;
use std::time::{Duration, SystemTime};

use super::files::FileList;
use super::options::FileLimits;
use super::segment::Segment;

/// No segment was written before 2026. A file that says so was written by a clock that was not set.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);

/// Removes expired segments. `active_len` is the length of the active segment.
pub(super) fn remove_expired(files: &FileList, limits: &FileLimits, active_len: u64, now: SystemTime) {
    let closed = files.snapshot().closed;
    for segment in &closed[..expired(&closed, limits, active_len, now)] {
        // Off the list first: if it is being compressed, the compressor sees that and removes its copy.
        let Some(segment) = files.remove(segment.first_seq) else { continue };
        let path = segment.path.display();
        match std::fs::remove_file(&segment.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(segment = %path, error, "can't remove an expired segment; retrying in a second");
                files.insert(segment);
                break;
            }
            _ => tracing::info!(segment = %path, bytes = segment.bytes, "removed an expired segment"),
        }
    }
}

/// How many of the oldest segments have expired. While the active segment is empty the newest closed one
/// stays: it has the last sequence number.
fn expired(closed: &[Segment], limits: &FileLimits, active_len: u64, now: SystemTime) -> usize {
    let mut total = active_len + closed.iter().map(|segment| segment.bytes).sum::<u64>();
    let removable = closed.len() - usize::from(active_len == 0 && !closed.is_empty());
    let expired =
        closed[..removable].iter().zip(last_writes(closed, now)).take_while(|(segment, written)| {
            let age = now.duration_since(*written).unwrap_or_default();
            let remove = limits.retain_age.is_some_and(|max| age > max)
                || limits.retain_bytes.is_some_and(|max| total > max);
            total -= segment.bytes;
            remove
        });
    expired.count()
}

/// The latest time at which each segment can have been written last.
fn last_writes(closed: &[Segment], now: SystemTime) -> Vec<SystemTime> {
    let possible = SystemTime::UNIX_EPOCH + EARLIEST..=now;
    // A file's time that can't be is replaced by that of the next segment.
    let mut next = now;
    let mut times: Vec<_> = (closed.iter().rev())
        .map(|segment| {
            if possible.contains(&segment.modified) {
                next = segment.modified;
            }
            next
        })
        .collect();
    times.reverse();
    // Segments are written one after the other.
    let mut earliest = SystemTime::UNIX_EPOCH;
    for time in &mut times {
        earliest = earliest.max(*time);
        *time = earliest;
    }
    times
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::clock::SteadyClock;
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + EARLIEST + 300 * DAY
    }

    fn segment(first_seq: u64, bytes: u64, modified: SystemTime) -> Segment {
        Segment { first_seq, path: format!("s-{first_seq}").into(), bytes, modified }
    }

    fn by_age(age: Duration) -> FileLimits {
        FileLimits { retain_age: Some(age), ..FileLimits::default() }
    }

    #[test]
    fn the_oldest_segments_expire_first_by_age_or_by_total() {
        let now = start();
        let aged = |seq, age| segment(seq, 100, now - Duration::from_secs(age));
        let closed = [aged(1, 300), aged(2, 200), aged(3, 100)];
        let total = |max| FileLimits { retain_bytes: Some(max), ..FileLimits::default() };
        let by_age = |secs| expired(&closed, &by_age(Duration::from_secs(secs)), 1, now);
        assert_eq!((by_age(400), by_age(250), by_age(50)), (0, 1, 3));
        let by_total = |max| expired(&closed, &total(max), 1, now);
        assert_eq!((by_total(301), by_total(300), by_total(150), by_total(0)), (0, 1, 2, 3));
        assert_eq!(expired(&closed, &total(0), 0, now), 2, "the newest has the last sequence number");
    }

    #[test]
    fn a_segment_with_an_impossible_time_is_as_young_as_its_neighbours() {
        let now = start();
        let closed = |modified: [SystemTime; 4]| {
            (1..).zip(modified).map(|(seq, modified)| segment(seq, 1, modified)).collect::<Vec<_>>()
        };
        let expired = |modified| expired(&closed(modified), &by_age(10 * DAY), 1, now);
        let ago = |days: u32| now - days * DAY;
        assert_eq!(expired([ago(12), now + 31 * DAY, ago(11), ago(1)]), 3, "the future delays nothing");
        assert_eq!(expired([ago(12), SystemTime::UNIX_EPOCH, ago(9), ago(1)]), 1, "1970 is not age");
        assert_eq!(expired([SystemTime::UNIX_EPOCH; 4]), 0);
        assert_eq!(expired([ago(9), ago(400), ago(8), ago(1)]), 0, "a clock that was back for a while");
    }

    proptest! {
        /// The system's clock is wrong again and again, by any amount, each time for less than a jump is believed
        /// after. Segments are closed every few hours.
        #[test]
        fn a_wrong_clock_removes_nothing_early_and_keeps_nothing_forever(
            jumps in proptest::collection::vec((1_u64..200, 1_u64..6, -400_i64..400), 0..8),
            every in 1_u64..30,
        ) {
            let wrong = |hour: u64| {
                let mut begins = 0;
                jumps.iter().find_map(|(after, hours, days)| {
                    begins += after;
                    let within = (begins..begins + hours).contains(&hour);
                    begins += hours;
                    within.then_some(*days)
                })
            };
            let mut clock = SteadyClock::new(None, start());
            let (mut closed, mut closed_at) = (Vec::<Segment>::new(), Vec::new());
            let hours = 24 * 130;
            for hour in 0..hours {
                let uptime = u32::try_from(hour).unwrap() * HOUR;
                let right = start() + uptime;
                let system = match wrong(hour) {
                    Some(days) if days < 0 => right - u32::try_from(-days).unwrap() * DAY,
                    days => right + u32::try_from(days.unwrap_or(0)).unwrap() * DAY,
                };
                let now = clock.now(system, uptime);
                if hour % every == 0 {
                    closed.push(segment(hour, 1, system.max(now)));
                    closed_at.push(hour);
                }
                for _ in 0..expired(&closed, &by_age(30 * DAY), 1, now) {
                    closed.remove(0);
                    let age = hour - closed_at.remove(0);
                    prop_assert!(age >= 30 * 24, "removed after {age} hours");
                }
            }
            // Nothing is kept for longer than the largest jump.
            let later = start() + 130 * DAY + 431 * DAY;
            prop_assert_eq!(expired(&closed, &by_age(30 * DAY), 1, later), closed.len());
        }
    }
}
