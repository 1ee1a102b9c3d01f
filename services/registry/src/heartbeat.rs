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
use hubspoke_chassis::telemetry::Source;
use hubspoke_client::trace;
use hubspoke_protocol::{HEART_BEAT_PATH, HUB_INSTANCE, HUB_REVISION, Heartbeat, Revision, ServiceInfo};
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
/// Orders taken in before anything else is looked at.
const ORDERS_AT_ONCE: usize = 256;
/// So many starts may have gone before the schedule is looked through for them.
const MANY: usize = 1024;
/// Heartbeats come up to this part of the interval sooner.
const JITTER: f64 = 0.05;
/// What is missing for asking is said this often.
const SAY_EVERY: Duration = Duration::from_secs(60);

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
    /// Starts that went since `due` was last looked through for them.
    forgotten: usize,
    /// When it was last said that there is something missing for asking.
    lack_said: Option<Instant>,
}

struct Outcome {
    key: Key,
    start: u64,
    took: Duration,
    answer: Result<Option<Heartbeat>, Failure>,
    idle: Option<Idle>,
}

/// Why there is no answer.
enum Failure {
    /// The member did not give one.
    Missed(String),
    /// It was not asked, for want of something on this side.
    Unasked(String),
}

impl Heartbeats {
    pub(crate) fn new(
        core: Arc<Core>,
        orders: UnboundedReceiver<Order>,
        mut settings: config::Heartbeat,
    ) -> Self {
        // The rest is for those who call us, and for heartbeats and pushes under way.
        settings.keep_open = settings.keep_open.min(hubspoke_chassis::server::raise_file_limit() / 2);
        Self {
            core,
            orders,
            settings,
            due: BinaryHeap::new(),
            under_way: JoinSet::new(),
            idle: HashMap::new(),
            failing: HashSet::new(),
            forgotten: 0,
            lack_said: None,
        }
    }

    /// Asks until it is dropped.
    ///
    /// # Errors
    /// Where one of its tasks died.
    pub(crate) async fn run(mut self) -> Result<(), JoinError> {
        let mut orders = Vec::new();
        loop {
            let next = self.due.peek().map_or_else(Instant::now, |Reverse((at, ..))| *at);
            let may_start = !self.due.is_empty() && self.under_way.len() < self.settings.concurrency;
            tokio::select! {
                count = self.orders.recv_many(&mut orders, ORDERS_AT_ONCE) => {
                    if count == 0 {
                        return Ok(()); // nobody is left who could order
                    }
                    orders.drain(..).for_each(|order| self.take(order));
                    self.drop_stale();
                }
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
                self.forgotten += 1;
                // Another start at the same address, if there is one, has not been asked yet.
                self.failing.remove(&key);
            }
        }
    }

    /// What is due for those that are gone goes with its time; where many go, that is too late.
    fn drop_stale(&mut self) {
        if self.forgotten <= self.due.len() / 2 + MANY {
            return;
        }
        self.forgotten = 0;
        let due = &mut self.due;
        self.core.read(|catalog, _| {
            due.retain(|Reverse((_, key, start))| {
                catalog.registered(key).is_some_and(|(current, _)| current == *start)
            });
        });
    }

    fn pause(&self, when: When) -> Duration {
        let interval = self.settings.interval;
        match when {
            When::Spread => rand::rng().random_range(Duration::ZERO..=interval),
            When::Soon => rand::rng().random_range(Duration::ZERO..=SOON.min(interval)),
            // Those that were asked together drift apart.
            When::Interval => interval.mul_f64(rand::rng().random_range(1.0 - JITTER..=1.0)),
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
        let answer = match answer {
            Ok(beat) => Ok(beat),
            Err(Failure::Missed(why)) => Err(why),
            Err(Failure::Unasked(why)) => return self.unasked(key, start, &why),
        };
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

    /// It is no fault of the member's, and it is asked again.
    fn unasked(&mut self, key: Key, start: u64, why: &str) {
        if self.lack_said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            self.lack_said = Some(Instant::now());
            tracing::error!(why, "can't ask members for their hearts; they are not held to have missed it");
        }
        // Refused by nothing: it orders the next attempt, or nothing where that start is gone.
        let _ = self.core.apply(Event::Unasked { key, start }, None);
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
            Some(id) => (Err(Failure::Missed(format!("another start answers there: {id}"))), reply.idle),
            // Whatever else an old member says with its 200, it is alive.
            None => (Ok(reply.body.and_then(|body| serde_json::from_slice(&body).ok())), reply.idle),
        },
        Ok(reply) => (Err(Failure::Missed(format!("it answered {}", reply.status))), reply.idle),
        Err(error) if error.is_our_lack(addr) => (Err(Failure::Unasked(error.to_string())), None),
        Err(error) => (Err(Failure::Missed(error.to_string())), None),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::By;
    use crate::config::Settings;

    #[tokio::test]
    async fn the_schedule_is_bounded_by_those_that_are_there() {
        let mut settings = Settings::default();
        settings.heartbeat.interval = Duration::from_secs(3600); // nothing is due in this test
        let metrics = hubspoke_chassis::Metrics::new("registry", "test").unwrap();
        let (core, orders) = Core::new(&settings, 1, &metrics);
        let core = Arc::new(core);
        let mut heartbeats = Heartbeats::new(core.clone(), orders, settings.heartbeat);
        let info = |i: usize| ServiceInfo::new("log", format!("10.0.0.1:{i}"));
        for i in 1..=50 {
            core.register(info(i)).unwrap();
        }
        for i in 51..10_000 {
            core.register(info(i)).unwrap();
            let key = Key::new("log", &info(i).addr);
            core.apply(Event::Deregister { key, id: None, by: By::Itself }, None).unwrap();
            while let Ok(order) = heartbeats.orders.try_recv() {
                heartbeats.take(order);
                heartbeats.drop_stale();
            }
            assert!(heartbeats.due.len() <= 2 * (50 + MANY) + 2, "{}", heartbeats.due.len());
        }
        heartbeats.forgotten = usize::MAX;
        heartbeats.drop_stale();
        assert_eq!(heartbeats.due.len(), 50, "those that are there stay");
    }
}
