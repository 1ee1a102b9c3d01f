//! Turns between replicas, so that each of them counts. Pure.
//!
//! Compare-and-put is not fair: a replica that is further away from etcd's leader than another one, or whose member of
//! etcd learns of commits a little later, always finds that the count has moved on, for as long as the other one writes
//! without a pause. So a replica that keeps losing leaves a mark, with the time that its writes take, and the one that
//! finds the mark lets it go first.

use std::time::Duration;

/// Writes that a replica may lose in a row before it asks for its turn. Fewer are usual and cost nothing.
const PATIENCE: u32 = 3;
/// Of a mark's time, this many make the pause: the write that finds the mark makes the one after it come too late, so the
/// next but one is the first that can succeed.
const WRITES: u32 = 3;

/// The turns, as one replica sees them.
#[derive(Debug)]
pub(super) struct Turns {
    writer: String,
    /// Longest pause.
    limit: Duration,
    lost_in_a_row: u32,
    /// The revision of the last mark that was answered with a pause.
    answered: i64,
    took: Duration,
}

impl Turns {
    pub(super) fn new(writer: String, limit: Duration) -> Self {
        Self { writer, limit, lost_in_a_row: 0, answered: 0, took: Duration::ZERO }
    }

    /// The mark to leave if the next write is lost, too.
    pub(super) fn mark(&self) -> Option<String> {
        (self.lost_in_a_row >= PATIENCE).then(|| format!("{} {}", self.writer, self.took.as_millis().max(1)))
    }

    /// A write came too late, after so long.
    pub(super) fn lost(&mut self, took: Duration) {
        self.lost_in_a_row += 1;
        self.took = took;
    }

    /// A write was applied and found this mark, which was left at a revision. Returns how long to let others go first.
    pub(super) fn won(&mut self, mark: Option<(&[u8], i64)>) -> Duration {
        self.lost_in_a_row = 0;
        let Some((mark, revision)) = mark.filter(|(_, revision)| *revision > self.answered) else {
            return Duration::ZERO;
        };
        self.answered = revision;
        let mark = str::from_utf8(mark).ok().and_then(|mark| mark.split_once(' '));
        let others = mark.filter(|(writer, _)| *writer != self.writer);
        let took =
            others.and_then(|(_, millis)| millis.parse().ok()).map_or(Duration::ZERO, Duration::from_millis);
        took.saturating_mul(WRITES).min(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn one_that_keeps_losing_asks_for_its_turn_and_gets_it_once() {
        let (mut near, mut far) =
            (Turns::new("near".to_owned(), 1000 * MS), Turns::new("far".to_owned(), 1000 * MS));
        for _ in 0..PATIENCE {
            assert_eq!(far.mark(), None, "a few losses are usual");
            far.lost(100 * MS);
        }
        let mark = far.mark().unwrap();
        assert_eq!(near.won(None), Duration::ZERO);
        assert_eq!(near.won(Some((mark.as_bytes(), 7))), 300 * MS);
        assert_eq!(near.won(Some((mark.as_bytes(), 7))), Duration::ZERO, "the same mark");
        assert_eq!(near.won(Some((mark.as_bytes(), 9))), 300 * MS, "left once more");
        assert_eq!(far.won(Some((mark.as_bytes(), 9))), Duration::ZERO, "its own");
        assert_eq!(far.mark(), None, "it has had its turn");
    }

    #[test]
    fn a_pause_is_bounded_whatever_the_mark_says() {
        let mut turns = Turns::new("a".to_owned(), 1000 * MS);
        for (revision, mark, pause) in [
            (1, &b"b 18446744073709551615"[..], 1000 * MS),
            (2, b"b 18446744073709551616", Duration::ZERO),
            (3, b"b", Duration::ZERO),
            (4, b"\xff 1", Duration::ZERO),
            (5, b"", Duration::ZERO),
            (6, b"b 2", 6 * MS),
        ] {
            assert_eq!(turns.won(Some((mark, revision))), pause, "{mark:?}");
        }
    }
}
