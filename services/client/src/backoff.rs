//! The pause between attempts.

use std::time::Duration;

use rand::RngExt;

/// How long to wait after `failures` failures in a row: `first`, doubled with each further one up to `max`, times a
/// random factor from 0.5 to 1, so that clients that failed together do not retry together.
///
/// ```
/// use std::time::Duration;
///
/// let (first, max) = (Duration::from_millis(100), Duration::from_secs(2));
/// let third = hubspoke_client::backoff(3, first, max);
/// assert!((200..=400).contains(&third.as_millis()));
/// assert!(hubspoke_client::backoff(1000, first, max) <= max);
/// ```
pub fn backoff(failures: u32, first: Duration, max: Duration) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(max).mul_f64(rand::rng().random_range(0.5..=1.0))
}
