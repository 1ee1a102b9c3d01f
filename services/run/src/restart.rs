//! Whether and when a program that has ended starts again. Pure.

use std::time::Duration;

use crate::spec::RestartPolicy;

/// Pause before the first restart; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// A program that has run for this long has not failed to start: the pauses begin anew.
const STEADY: Duration = Duration::from_secs(60);

/// The restarts of one replica.
#[derive(Debug, Clone)]
pub(crate) struct Restarts {
    policy: RestartPolicy,
    in_a_row: u32,
    /// All of them.
    pub(crate) count: u32,
}

impl Restarts {
    pub(crate) fn new(policy: RestartPolicy) -> Self {
        Self { policy, in_a_row: 0, count: 0 }
    }

    /// The pause before the next start; `None` if there is none.
    pub(crate) fn after_exit(&mut self, code: u8, ran: Duration) -> Option<Duration> {
        let again = match self.policy {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Always => true,
        };
        if !again {
            return None;
        }
        if ran >= STEADY {
            self.in_a_row = 0;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.in_a_row.min(10)).min(MAX_PAUSE);
        self.in_a_row += 1;
        self.count = self.count.saturating_add(1);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_decides_and_pauses_grow_until_the_program_is_steady() {
        let short = Duration::from_secs(1);
        assert_eq!(Restarts::new(RestartPolicy::No).after_exit(1, short), None);
        let mut on_failure = Restarts::new(RestartPolicy::OnFailure);
        assert_eq!(on_failure.after_exit(0, short), None);
        let pauses: Vec<u128> =
            (0..9).map(|_| on_failure.after_exit(1, short).unwrap().as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        assert_eq!(on_failure.after_exit(1, STEADY), Some(FIRST_PAUSE));
        assert_eq!(on_failure.count, 10);
        let mut always = Restarts::new(RestartPolicy::Always);
        assert_eq!(always.after_exit(0, short), Some(FIRST_PAUSE));
    }
}
