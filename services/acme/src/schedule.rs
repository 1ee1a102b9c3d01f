//! When a certificate is renewed, and when a failed order is tried again. Pure: times are seconds since 1970, and `chance`
//! is a random number from 0 to 1.

use std::time::Duration;

/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause. Let's Encrypt allows five failures per host and hour.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// When a certificate is renewed: when a third of its lifetime is left, or up to a thirtieth before that, so that many
/// certificates of one day do not all come again on one day.
pub(crate) fn renewal(not_before: i64, not_after: i64, chance: f64) -> i64 {
    let lifetime = not_after.saturating_sub(not_before).max(0);
    let earlier = (lifetime as f64 / 30.0 * chance) as i64;
    not_after - lifetime / 3 - earlier
}

/// How long to wait after so many failures in a row: a quarter more or less than twice the last pause.
pub(crate) fn pause(failures: u32, chance: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    doubled.min(LONGEST_PAUSE).mul_f64(0.75 + chance / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_lifetime_is_left() {
        const DAY: i64 = 86_400;
        assert_eq!(renewal(0, 90 * DAY, 0.0), 60 * DAY);
        assert_eq!(renewal(0, 90 * DAY, 1.0), 57 * DAY);
        assert_eq!(renewal(100, 130, 0.0), 120);
        assert_eq!(renewal(100, 50, 0.5), 50, "a certificate that is none");
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        assert_eq!(pause(1, 0.5), Duration::from_secs(60));
        assert_eq!(pause(4, 0.5), Duration::from_secs(480));
        assert_eq!((pause(1, 0.0), pause(1, 1.0)), (Duration::from_secs(45), Duration::from_secs(75)));
        assert_eq!(pause(u32::MAX, 1.0), LONGEST_PAUSE.mul_f64(1.25));
    }
}
