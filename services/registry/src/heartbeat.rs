//! Heartbeats: asks every instance at its time whether it is alive, and tells the catalogue what it said.
//!
//! One loop owns the schedule, the requests under way and the connections kept between them. The catalogue orders
//! each heartbeat and decides what an outcome means; here is only when and how. Starts are spread over the
//! interval, and a slow instance holds up nobody: it takes one of many places, for no longer than the timeout.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hub_client::protocol::{HEART_BEAT_PATH, HUB_INSTANCE, HUB_REVISION, Heartbeat, Revision, ServiceInfo};
use rand::RngExt;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::catalog::{Event, Key, When};
use crate::config;
use crate::core::Core;
use crate::peer::{self, Idle};

/// Longest answer that is read: what a member says of its load takes some 60 bytes.
const MAX_ANSWER: usize = 4096;
/// An instance known only from before a restart is asked within this time.
const SOON: Duration = Duration::from_secs(1);

/// What the catalogue wants.
#[derive(Debug)]
pub(crate) enum Order {
    /// Ask that start of an instance.
    Beat { key: Key, start: u64, when: When },
    /// It is gone.
    Forget { key: Key, start: u64 },
}

/// The loop's state. See the module's description.
pub(crate) struct Heartbeats {
    core: Arc<Core>,
    orders: UnboundedReceiver<Order>,
    settings: config::Heartbeat,
    due: BinaryHeap<Reverse<(Instant, Key, u64)>>,
    under_way: JoinSet<Outcome>,
    idle: HashMap<Key, (u64, Idle)>,
}

struct Outcome {
    key: Key,
    start: u64,
    answer: Result<Option<Heartbeat>, String>,
    idle: Option<Idle>,
}

impl Heartbeats {
    pub(crate) fn new(
        core: Arc<Core>,
        orders: UnboundedReceiver<Order>,
        settings: config::Heartbeat,
    ) -> Self {
        Self {
            core,
            orders,
            settings,
            due: BinaryHeap::new(),
            under_way: JoinSet::new(),
            idle: HashMap::new(),
        }
    }

    /// Asks until it is dropped.
    ///
    /// # Errors
    /// Where one of its tasks died.
    pub(crate) async fn run(mut self) -> Result<(), JoinError> {
        loop {
            let next = self.due.peek().map_or_else(Instant::now, |Reverse((at, ..))| *at);
            let may_start = !self.due.is_empty() && self.under_way.len() < self.settings.concurrency;
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(order) => self.take(order),
                    None => return Ok(()), // nobody is left who could order
                },
                Some(outcome) = self.under_way.join_next() => self.finish(outcome?),
                () = tokio::time::sleep_until(next), if may_start => self.start_due(),
            }
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Beat { key, start, when } => {
                self.due.push(Reverse((Instant::now() + self.pause(when), key, start)));
            }
            Order::Forget { key, start } => {
                if self.idle.get(&key).is_some_and(|(of, _)| *of == start) {
                    self.idle.remove(&key);
                }
            }
        }
    }

    fn pause(&self, when: When) -> Duration {
        let interval = self.settings.interval;
        match when {
            When::Spread => rand::rng().random_range(Duration::ZERO..=interval),
            When::Soon => rand::rng().random_range(Duration::ZERO..=SOON.min(interval)),
            When::Interval => interval,
            When::Gap => self.settings.gap,
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        while self.under_way.len() < self.settings.concurrency
            && self.due.peek().is_some_and(|Reverse((at, ..))| *at <= now)
            && let Some(Reverse((_, key, start))) = self.due.pop()
        {
            let found = self.core.read(|catalog, _| {
                let (current, info) = catalog.registered(&key).filter(|(current, _)| *current == start)?;
                let newest = catalog.newest_for(&info);
                Some((current, info, newest))
            });
            let kept = self.idle.remove(&key);
            let Some((_, info, newest)) = found else { continue };
            let kept = kept.filter(|(of, _)| *of == start).map(|(_, idle)| idle);
            let revision = self.core.revision_of(newest);
            self.under_way.spawn(beat(key, start, info, revision, kept, self.settings.timeout));
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        let Outcome { key, start, answer, idle } = outcome;
        if let Some(idle) = idle
            && self.idle.len() < self.settings.keep_open
        {
            self.idle.insert(key.clone(), (start, idle));
        }
        self.core.stats.heartbeat(answer.is_ok());
        if let Err(why) = &answer {
            tracing::debug!(service = %key.name, addr = %key.addr, why, "heartbeat failed");
        }
        let event = Event::Heartbeat { key: key.clone(), start, answer };
        if matches!(self.core.apply(event, None), Ok(crate::catalog::Outcome::Unknown)) {
            self.idle.remove(&key);
        }
    }
}

async fn beat(
    key: Key,
    start: u64,
    info: Arc<ServiceInfo>,
    revision: Revision,
    kept: Option<Idle>,
    timeout: Duration,
) -> Outcome {
    let addr = info.control_addr();
    let request = || heartbeat(addr, revision);
    let (answer, idle) = match peer::ask(addr, kept, request, MAX_ANSWER, timeout).await {
        Ok(reply) if reply.status == StatusCode::OK => match stranger(&info, &reply) {
            Some(id) => (Err(format!("another start answers there: {id}")), reply.idle),
            // Whatever else an old member says with its 200, it is alive.
            None => (Ok(reply.body.and_then(|body| serde_json::from_slice(&body).ok())), reply.idle),
        },
        Ok(reply) => (Err(format!("it answered {}", reply.status)), reply.idle),
        Err(error) => (Err(error.to_string()), None),
    };
    Outcome { key, start, answer, idle }
}

fn heartbeat(addr: &str, revision: Revision) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = http::Uri::from_static(HEART_BEAT_PATH);
    let headers = request.headers_mut();
    for (name, value) in
        [(header::HOST, addr.to_owned()), (http::HeaderName::from_static(HUB_REVISION), revision.to_string())]
    {
        // An address and a revision hold nothing that a header can't.
        if let Ok(value) = http::HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    request
}

/// The `Id` of whoever answers, where that is not the one that registered: addresses are used again, and a
/// stranger's good health must not keep a dead instance in the catalogue.
fn stranger(info: &ServiceInfo, reply: &peer::Reply) -> Option<String> {
    let registered = info.id.as_deref()?;
    let answers = reply.headers.get(HUB_INSTANCE)?.to_str().ok()?;
    (answers != registered).then(|| answers.chars().take(100).collect())
}
