//! Refused requests: counted, logged at a bounded rate, and answered slowly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use opentelemetry::KeyValue;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::denied::Denied;
use crate::metrics::Metrics;
use crate::rate_limit::{RateLimit, RateState};
use crate::server::ConnectionHandle;

/// How much later a refused request is answered, so that a client that repeats one keeps nobody busy.
const DELAY: Duration = Duration::from_millis(250);
/// Most refusals that wait at once. Further ones are answered without delay: they must not fill the port.
const MAX_WAITING: usize = 64;
/// Log lines per second, and how many may come at once.
const LINES: (u32, u32) = (1, 10);
/// Most characters of a forwarded address that are logged.
const MAX_FORWARDED: usize = 100;

/// What is known of refused requests.
#[derive(Debug)]
pub(super) struct Refusals {
    counts: Arc<[AtomicU64; Denied::REASONS.len()]>,
    limit: Option<RateLimit>,
    log: Mutex<RefusalLog>,
    waiting: Semaphore,
}

#[derive(Debug, Default)]
struct RefusalLog {
    rate: RateState,
    suppressed: u64,
}

impl Default for Refusals {
    fn default() -> Self {
        let (rate, burst) = LINES;
        Self {
            counts: Arc::default(),
            limit: RateLimit::new(rate, burst),
            log: Mutex::default(),
            waiting: Semaphore::new(MAX_WAITING),
        }
    }
}

impl Refusals {
    /// Shows how many there are.
    pub(super) fn register(&self, metrics: &Metrics) {
        let shown = self.counts.clone();
        metrics
            .meter()
            .u64_observable_counter("hub.access.refused")
            .with_unit("{request}")
            .with_description("Requests refused for want of a token or a right, by reason")
            .with_callback(move |refused| {
                for (reason, count) in Denied::REASONS.iter().zip(shown.iter()) {
                    refused.observe(count.load(Relaxed), &[KeyValue::new("reason", *reason)]);
                }
            })
            .build();
    }

    /// Notes a refused request, and lets its sender wait.
    pub(super) async fn refuse(
        &self,
        denied: &Denied,
        headers: &HeaderMap,
        connection: Option<&ConnectionHandle>,
    ) {
        if let Some(count) = self.counts.get(denied.reason()) {
            count.fetch_add(1, Relaxed);
        }
        self.report(denied, headers, connection);
        if let Ok(_place) = self.waiting.try_acquire() {
            sleep(DELAY).await;
        }
    }

    fn report(&self, denied: &Denied, headers: &HeaderMap, connection: Option<&ConnectionHandle>) {
        let suppressed = {
            let mut log = self.log.lock();
            let RefusalLog { rate, suppressed } = &mut *log;
            if self.limit.as_ref().is_some_and(|limit| !limit.admit(rate, Instant::now())) {
                *suppressed += 1;
                return;
            }
            std::mem::take(suppressed)
        };
        let client = connection.and_then(ConnectionHandle::peer).map(|peer| peer.ip().to_string());
        let (client, reason) = (client.unwrap_or_default(), denied.to_string());
        // A claim, unless the client is a gateway.
        let forwarded = headers.get("x-forwarded-for").and_then(|list| list.to_str().ok());
        match forwarded.and_then(|list| list.get(..list.len().min(MAX_FORWARDED))) {
            Some(forwarded_for) => {
                tracing::warn!(client, forwarded_for, reason, suppressed, "a request was refused");
            }
            None => tracing::warn!(client, reason, suppressed, "a request was refused"),
        }
    }
}
