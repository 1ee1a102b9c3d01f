//! Open-loop load: visit k is due at k/rate seconds, whether or not the earlier ones have been answered, so a
//! slow platform can't slow the measurement down ("coordinated omission"). Latency begins when a visit is due.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use hubspoke_client::log::HUB_LOGGED_BY;
use hubspoke_protocol::HUB_INSTANCE;
use reqwest::Client;
use reqwest::header::HeaderMap;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::tally::{ServedBy, Tally, VisitResult};
use crate::cause::Cause;
use crate::text;

/// Most visits in flight. Further ones wait, which counts as latency.
const MAX_IN_FLIGHT: usize = 1000;
/// Longest time that a visit may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A visit sent at most this late counts from when it was sent: the timer's resolution is a millisecond.
const TIMER_SLACK: Duration = Duration::from_millis(2);
/// How often progress is shown.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// The load to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoadPlan {
    pub(super) url: String,
    /// Visits per second.
    pub(super) rate: u32,
    /// Visits in all.
    pub(super) visits: u64,
}

/// Sends the visits, or those due before `stop`, and waits for the responses. Calls `show` ten times a second.
///
/// # Errors
/// If the URL is invalid, the HTTP client can't be built, or a task panics.
pub(super) async fn generate(
    plan: &LoadPlan,
    stop: impl Future<Output = ()>,
    mut show: impl FnMut(&Tally, Duration),
) -> anyhow::Result<Tally> {
    let http = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .pool_max_idle_per_host(MAX_IN_FLIGHT)
        .build()?;
    let request = http.get(&plan.url).build().with_context(|| format!("{} is not a valid URL", plan.url))?;
    let mut tally = Tally::new()?;
    let mut in_flight = JoinSet::new();
    let mut stop = pin!(stop);
    let mut ticks = interval(SHOW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let start = Instant::now();
    let (mut sent, mut visits) = (0, plan.visits);
    while sent < visits || !in_flight.is_empty() {
        let due = start + Duration::from_secs_f64(sent as f64 / f64::from(plan.rate));
        tokio::select! {
            () = &mut stop, if sent < visits => visits = sent,
            Some(result) = in_flight.join_next() => tally.add(result?),
            () = sleep_until(due), if sent < visits && in_flight.len() < MAX_IN_FLIGHT => {
                let request = request.try_clone().context("a GET has no body")?;
                in_flight.spawn(visit(http.clone(), request, due));
                sent += 1;
            }
            _ = ticks.tick() => show(&tally, start.elapsed()),
        }
    }
    tally.took = start.elapsed();
    Ok(tally)
}

async fn visit(http: Client, request: reqwest::Request, due: Instant) -> VisitResult {
    let sent = Instant::now();
    let from = if sent.duration_since(due) <= TIMER_SLACK { sent } else { due };
    let outcome = send(&http, request).await;
    VisitResult { latency: from.elapsed(), outcome }
}

async fn send(http: &Client, request: reqwest::Request) -> Result<ServedBy, String> {
    let reply = http.execute(request).await.map_err(|error| failure(&error))?;
    let status = reply.status();
    let served = ServedBy {
        visit: header(reply.headers(), HUB_INSTANCE),
        log: header(reply.headers(), HUB_LOGGED_BY),
    };
    let body = reply.bytes().await.map_err(|error| failure(&error))?;
    if status.is_success() {
        return Ok(served);
    }
    let detail = text::problem_detail(&body);
    Err(if detail.is_empty() { status.to_string() } else { format!("{status}: {detail}") })
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn failure(error: &reqwest::Error) -> String {
    match Cause::of(error) {
        Cause::Timeout { .. } => format!("no answer within {TIMEOUT:?}"),
        Cause::Connect(why) => format!("can't connect: {why}"),
        cause => cause.to_string(),
    }
}
