//! Which requests are retried on another instance, and how many. Pure.
//!
//! A request that the failed instance can't have seen is retried whatever its method; one that it may have seen, if its
//! method is idempotent (RFC 9110, 9.2.2); one whose response has begun, never. The budget keeps retries from
//! multiplying the load on a service that is failing.

use std::time::{Duration, Instant};

use http::Method;
use serde::{Deserialize, Serialize};

/// How often requests are retried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct RetryConfig {
    /// Maximum number of attempts after the first, each on another instance.
    pub attempts: u32,
    /// Retries that a service may get, in percent of its requests.
    pub budget_percent: u32,
    /// Retries per second that it may get in addition.
    pub budget_per_second: u32,
    /// Size of the longest request body that is buffered for a retry.
    pub replay: bytesize::ByteSize,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { attempts: 2, budget_percent: 20, budget_per_second: 10, replay: bytesize::ByteSize::kib(64) }
    }
}

/// How far a failed attempt got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// The instance can't have seen the request: there was no connection, or nothing was written to it.
    Nothing,
    /// It may have seen the request, and has not sent a byte of a response.
    Instance,
    /// It has begun to respond.
    Response,
}

/// Whether a failed attempt may be followed by another. `replayable`: all of the body that was sent is still buffered.
pub(crate) fn may_retry(reached: Reached, method: &Method, replayable: bool) -> bool {
    replayable
        && match reached {
            Reached::Nothing => true,
            Reached::Instance => method.is_idempotent(),
            Reached::Response => false,
        }
}

/// The retries that a service has left, in two token buckets: one is filled by time, one by requests.
#[derive(Debug, Clone)]
pub(crate) struct RetryBudget {
    by_time: f64,
    by_requests: f64,
    /// The time, and the number of requests, at which the buckets were last filled.
    filled: Option<(Instant, u64)>,
    /// When unused tokens of the requests' bucket last expired.
    expired: Option<Instant>,
}

/// How long unused retries last.
const WINDOW: Duration = Duration::from_secs(10);

impl RetryBudget {
    pub(crate) fn new(config: &RetryConfig) -> Self {
        Self { by_time: reserve(config), by_requests: 0.0, filled: None, expired: None }
    }

    /// Takes one retry; false if none is left. `requests` counts the service's requests since the start.
    pub(crate) fn spend(&mut self, now: Instant, requests: u64, config: &RetryConfig) -> bool {
        let (then, before) = self.filled.replace((now, requests)).unwrap_or((now, 0));
        if now.saturating_duration_since(*self.expired.get_or_insert(now)) > WINDOW {
            self.by_requests = 0.0;
            self.expired = Some(now);
        }
        let seconds = now.saturating_duration_since(then).as_secs_f64();
        self.by_time = (self.by_time + seconds * f64::from(config.budget_per_second)).min(reserve(config));
        self.by_requests += requests.saturating_sub(before) as f64 * f64::from(config.budget_percent) / 100.0;
        let fuller = if self.by_requests >= 1.0 { &mut self.by_requests } else { &mut self.by_time };
        let enough = *fuller >= 1.0;
        if enough {
            *fuller -= 1.0;
        }
        enough
    }
}

fn reserve(config: &RetryConfig) -> f64 {
    f64::from(config.budget_per_second) * WINDOW.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_that_was_never_seen_is_retried_whatever_its_method() {
        for method in [Method::GET, Method::POST, Method::PATCH, Method::PUT] {
            assert!(may_retry(Reached::Nothing, &method, true));
            assert!(!may_retry(Reached::Nothing, &method, false));
            assert!(!may_retry(Reached::Response, &method, true));
        }
    }

    #[test]
    fn a_request_that_may_have_been_seen_is_retried_if_it_is_idempotent() {
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert!(may_retry(Reached::Instance, &method, true), "{method}");
        }
        for method in [Method::POST, Method::PATCH] {
            assert!(!may_retry(Reached::Instance, &method, true), "{method}");
        }
    }

    #[test]
    fn the_budget_is_a_share_of_requests_and_a_few_per_second() {
        let config = RetryConfig::default();
        let mut budget = RetryBudget::new(&config);
        let mut now = Instant::now();
        let mut take = |now, requests| {
            std::iter::repeat_with(|| budget.spend(now, requests, &config))
                .take_while(|granted| *granted)
                .count()
        };
        assert_eq!(take(now, 0), 100); // the reserve
        now += Duration::from_secs(1);
        assert_eq!(take(now, 0), 10);
        assert_eq!(take(now, 1000), 200);
        now += Duration::from_secs(3600);
        assert_eq!(take(now, 1000), 100); // no more than ten seconds' worth
    }

    proptest! {
        #[test]
        fn no_more_retries_are_spent_than_were_earned(
            steps in proptest::collection::vec((0_u64..500, 0_u64..50), 1..200)
        ) {
            let config = RetryConfig::default();
            let mut budget = RetryBudget::new(&config);
            let start = Instant::now();
            let (mut now, mut requests, mut spent) = (start, 0, 0_u32);
            for (later, more) in steps {
                now += Duration::from_millis(later);
                requests += more;
                spent += u32::from(budget.spend(now, requests, &config));
            }
            let earned = 100.0 + requests as f64 * 0.2 + (now - start).as_secs_f64() * 10.0;
            prop_assert!(f64::from(spent) <= earned + 1e-6, "{} of {}", spent, earned);
        }
    }
}
