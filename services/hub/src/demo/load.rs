//! Open-loop load: visit k is due at k/rate seconds, whether or not the ones before have been answered, so a slow
//! platform can't slow the measurement down ("coordinated omission"). Latency counts from when a visit was due.

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

use super::tally::{Served, Tally, Visit};
use crate::text;

/// Visits in flight at the most; further ones wait, and their latency goes on counting.
const MAX_IN_FLIGHT: usize = 1000;
/// How long a visit may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What the timer may be late without it being the platform's fault: its own resolution is a millisecond.
const TIMER: Duration = Duration::from_millis(2);
/// Between two looks at how far it is.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// What to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What to ask for.
    pub url: String,
    /// Visits per second.
    pub rate: u32,
    /// How many in all.
    pub visits: u64,
}

/// Sends the visits; after `stop` no more, but waits for those in flight. `show` is called ten times a second.
///
/// # Errors
/// Where the HTTP client can't be made, or a task dies.
pub async fn generate(
    plan: &Plan,
    stop: impl Future<Output = ()>,
    mut show: impl FnMut(&Tally, Duration),
) -> anyhow::Result<Tally> {
    let http = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .pool_max_idle_per_host(MAX_IN_FLIGHT)
        .build()?;
    let request = http.get(&plan.url).build().with_context(|| format!("{} is no URL", plan.url))?;
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
            Some(over) = in_flight.join_next() => tally.add(over?),
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

async fn visit(http: Client, request: reqwest::Request, due: Instant) -> Visit {
    let begun = Instant::now();
    let from = if begun.duration_since(due) <= TIMER { begun } else { due };
    let outcome = ask(&http, request).await;
    Visit { took: from.elapsed(), outcome }
}

async fn ask(http: &Client, request: reqwest::Request) -> Result<Served, String> {
    let reply = http.execute(request).await.map_err(|error| failure(&error))?;
    let status = reply.status();
    let served = Served {
        by: header(reply.headers(), HUB_INSTANCE),
        logged_by: header(reply.headers(), HUB_LOGGED_BY),
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
    if error.is_timeout() {
        return format!("no answer within {TIMEOUT:?}");
    }
    let what = if error.is_connect() { "can't connect" } else { "the connection broke" };
    format!("{what}: {}", text::root_cause(error))
}
