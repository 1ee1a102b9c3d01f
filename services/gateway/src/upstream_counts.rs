//! Which instances' counts the next heartbeat reports: those of instances that report none themselves, in turn, as
//! many as a heartbeat has room for. Pure.

use hubspoke_protocol::UpstreamCount;

/// Bytes of a heartbeat's answer for the counts. The registry reads 4 KiB in all.
const MAX_BYTES: usize = 3_500;
/// Bytes of one count beside its service and address.
const OVERHEAD: usize = 100;

/// The counts that fit, from place `start` of all on, and where to go on the next time.
pub(crate) fn next(all: Vec<UpstreamCount>, start: usize) -> (Vec<UpstreamCount>, usize) {
    let number = all.len();
    let mut room = MAX_BYTES;
    let mut turn = all;
    turn.rotate_left(start.checked_rem(number).unwrap_or(0));
    let fits = |count: &UpstreamCount| {
        let size = count.service.len() + count.addr.len() + OVERHEAD;
        room.checked_sub(size).map(|rest| room = rest).is_some()
    };
    let taken: Vec<_> = turn.into_iter().take_while(fits).collect();
    let next = (start + taken.len()).checked_rem(number).unwrap_or(0);
    (taken, next)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hubspoke_protocol::Load;

    use super::*;

    fn counts(number: usize) -> Vec<UpstreamCount> {
        let load = Load { requests: u64::MAX, in_flight: Some(u64::MAX) };
        (0..number)
            .map(|n| UpstreamCount { service: "shop".into(), addr: format!("10.0.0.7:{n}"), load })
            .collect()
    }

    #[test]
    fn all_get_their_turn_and_each_turn_fits() {
        for number in [0, 1, 20, 1000] {
            let (mut start, mut seen) = (0, BTreeSet::new());
            for _ in 0..=number / 20 {
                let (taken, next) = next(counts(number), start);
                assert!(serde_json::to_string(&taken).unwrap().len() <= MAX_BYTES);
                seen.extend(taken.into_iter().map(|count| count.addr));
                start = next;
            }
            assert_eq!(seen.len(), number);
        }
        // The number of instances may shrink in between.
        assert_eq!(next(counts(3), 7).0.len(), 3);
    }
}
