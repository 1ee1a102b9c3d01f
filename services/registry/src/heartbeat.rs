//! Heartbeats: asks every instance at its time whether it is alive, and tells the catalogue what it said.
//!
//! One loop owns the schedule, the requests under way and the connections kept between them. The catalogue orders
//! each heartbeat and decides what an outcome means; here is only when and how. Starts are spread over the
//! interval, and a slow instance holds up nobody: it takes one of many places, for no longer than the timeout.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hub_chassis::telemetry::Source;
use hub_client::protocol::{HEART_BEAT_PATH, HUB_INSTANCE, HUB_REVISION, Heartbeat, Revision, ServiceInfo};
use hub_client::trace;
use rand::RngExt;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{Instrument, Span};

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
    /// Those whose last heartbeat failed.
    failing: HashSet<Key>,
}

struct Outcome {
    key: Key,
    start: u64,
    took: Duration,
    answer: Result<Option<Heartbeat>, String>,
    idle: Option<Idle>,
}

impl Heartbeats {
    pub(crate) fn new(
        core: Arc<Core>,
        orders: UnboundedReceiver<Order>,
        mut settings: config::Heartbeat,
    ) -> Self {
        // The rest is for those who call us, and for heartbeats and pushes under way.
        settings.keep_open = settings.keep_open.min(hub_chassis::server::raise_file_limit() / 2);
        Self {
            core,
            orders,
            settings,
            due: BinaryHeap::new(),
            under_way: JoinSet::new(),
            idle: HashMap::new(),
            failing: HashSet::new(),
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
                // Another start at the same address, if there is one, has not been asked yet.
                self.failing.remove(&key);
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
            let span = span(&self.core.source, &info);
            let beat = beat(key, start, info, revision, kept, self.settings.timeout);
            self.under_way.spawn(beat.instrument(span));
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        let Outcome { key, start, took, answer, idle } = outcome;
        if let Some(idle) = idle
            && self.idle.len() < self.settings.keep_open
        {
            self.idle.insert(key.clone(), (start, idle));
        }
        self.core.stats.heartbeat(&key.name, answer.is_ok(), took);
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        match &answer {
            Err(why) => {
                self.failing.insert(key.clone());
                tracing::warn!(service = %key.name, addr = %key.addr, duration_ms, why, "heartbeat failed");
            }
            Ok(_) if self.failing.remove(&key) => {
                tracing::info!(service = %key.name, addr = %key.addr, duration_ms, "heartbeat recovered");
            }
            Ok(_) => {}
        }
        let event = Event::Heartbeat { key: key.clone(), start, answer };
        if matches!(self.core.apply(event, None), Ok(crate::catalog::Outcome::Unknown)) {
            self.idle.remove(&key);
            self.failing.remove(&key);
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
    let began = Instant::now();
    let asked = peer::ask(addr, kept, request, MAX_ANSWER, timeout).await;
    let status = asked.as_ref().map(|reply| reply.status.as_u16());
    trace::attempted(&Span::current(), status.map_err(peer::PeerError::kind));
    let (answer, idle) = match asked {
        Ok(reply) if reply.status == StatusCode::OK => match stranger(&info, &reply) {
            Some(id) => (Err(format!("another start answers there: {id}")), reply.idle),
            // Whatever else an old member says with its 200, it is alive.
            None => (Ok(reply.body.and_then(|body| serde_json::from_slice(&body).ok())), reply.idle),
        },
        Ok(reply) => (Err(format!("it answered {}", reply.status)), reply.idle),
        Err(error) => (Err(error.to_string()), None),
    };
    Outcome { key, start, took: began.elapsed(), answer, idle }
}

fn span(source: &Source, info: &ServiceInfo) -> Span {
    let _of = source.enter();
    let (service, instance, addr) = (&info.name, info.id(), info.control_addr());
    let operation = Some("heartbeat");
    trace::Attempt { operation, method: "GET", path: HEART_BEAT_PATH, service, instance, addr, resend: 0 }
        .span()
}

fn heartbeat(addr: &str, revision: Revision) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = http::Uri::from_static(HEART_BEAT_PATH);
    let headers = request.headers_mut();
    trace::inject(headers);
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
