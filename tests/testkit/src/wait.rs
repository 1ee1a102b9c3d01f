//! Waiting for a condition.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Upper bound for anything a test waits for. Generous, because test machines are noisy and a test that passes
/// never waits for it.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Polls `condition` every 5 ms until it holds.
///
/// # Panics
/// With `what`, if it does not hold within [`DEADLINE`].
///
/// ```
/// # use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let polls = AtomicU32::new(0);
/// hubspoke_testkit::eventually("polled three times", async || polls.fetch_add(1, Relaxed) == 3).await;
/// # }
/// ```
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
