//! Sends heartbeats and reports their results.
//!
//! One task owns the schedule, the heartbeats in flight and the idle connections between them. The catalogue requests
//! each heartbeat and decides what its result means. Heartbeats are spread over the interval, and a slow instance
//! delays no other: it takes one of many slots, for no longer than the timeout.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use hubspoke_protocol::Heartbeat;
use rand::RngExt;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::Instrument;

use self::probe::{Failure, Probe, ProbeResult, probe_span, send};
use crate::catalog::{CatalogEvent, EventOutcome, HeartbeatTiming, Incarnation, InstanceKey};
use crate::config::HeartbeatSettings;
use crate::exchange::{IdleConn, MemberDialer};
use crate::instruments::Instruments;
use crate::shared::SharedCatalog;

mod check;
mod probe;

/// The first heartbeat to a restored instance is sent within this time.
const SOON: Duration = Duration::from_secs(1);
/// Most commands handled at a time.
const COMMAND_BATCH: usize = 256;
/// Most incarnations that may be gone before the schedule is searched for them.
const MAX_STALE: usize = 1024;
/// Heartbeats are sent early by up to this part of the interval.
const JITTER: f64 = 0.05;
/// Minimum time between two log lines about heartbeats that could not be sent.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A command of the catalogue.
#[derive(Debug)]
pub(crate) enum HeartbeatCommand {
    /// Send a heartbeat.
    Send { to: Incarnation, timing: HeartbeatTiming },
    /// The incarnation is gone.
    Forget(Incarnation),
}

/// Sends one heartbeat to a registered instance, for another registry that can't reach it. `None` if it is not answered.
pub(crate) async fn probe_once(
    catalog: &SharedCatalog,
    instruments: &Instruments,
    dialer: &MemberDialer,
    key: InstanceKey,
    timeout: Duration,
) -> Option<Option<Heartbeat>> {
    let (info, newest) = catalog.with(|catalog, _| {
        let info = catalog.registered(&key)?.clone();
        Some((info.clone(), catalog.newest_for(&info)))
    })?;
    let span = probe_span(&instruments.span_owner, &info);
    let to = Incarnation { key, number: 0 };
    let revision = catalog.revision_of(newest);
    let probe = Probe { to, info, is_removed: false, revision, idle: None };
    let result = send(dialer.clone(), probe, timeout).instrument(span).await;
    result.outcome.ok().map(|reply| reply.map(|reply| reply.heartbeat))
}

/// The heartbeat task. `R` takes the result of each heartbeat as an event.
pub(crate) struct Heartbeats<R> {
    catalog: Arc<SharedCatalog>,
    commands: UnboundedReceiver<HeartbeatCommand>,
    settings: HeartbeatSettings,
    instruments: Arc<Instruments>,
    dialer: MemberDialer,
    report: R,
    schedule: BinaryHeap<Reverse<(Instant, Incarnation)>>,
    in_flight: JoinSet<ProbeResult>,
    idle: HashMap<Incarnation, IdleConn>,
    /// Incarnations whose last heartbeat failed, so that a recovery is logged.
    failing: HashSet<Incarnation>,
    /// The intervals of incarnations that have chosen their own.
    intervals: HashMap<Incarnation, Duration>,
    /// Incarnations that have gone since the schedule was last searched for them.
    stale: usize,
    /// When it was last logged that heartbeats can't be sent.
    not_sent_logged: Option<Instant>,
}

impl<R: Fn(CatalogEvent) -> EventOutcome> Heartbeats<R> {
    pub(crate) fn new(
        catalog: Arc<SharedCatalog>,
        commands: UnboundedReceiver<HeartbeatCommand>,
        mut settings: HeartbeatSettings,
        instruments: Arc<Instruments>,
        dialer: MemberDialer,
        report: R,
    ) -> Self {
        // The other half is for clients, and for heartbeats and pushes in flight.
        settings.keep_open = settings.keep_open.min(hubspoke_chassis::server::raise_file_limit() / 2);
        Self {
            catalog,
            commands,
            settings,
            instruments,
            dialer,
            report,
            schedule: BinaryHeap::new(),
            in_flight: JoinSet::new(),
            idle: HashMap::new(),
            failing: HashSet::new(),
            intervals: HashMap::new(),
            stale: 0,
            not_sent_logged: None,
        }
    }

    /// Sends heartbeats until the sender of commands is dropped.
    ///
    /// # Errors
    /// If one of its tasks panicked.
    pub(crate) async fn run(mut self) -> Result<(), JoinError> {
        let mut commands = Vec::new();
        loop {
            let next = self.schedule.peek().map_or_else(Instant::now, |Reverse((at, _))| *at);
            let may_send = !self.schedule.is_empty() && self.in_flight.len() < self.settings.concurrency;
            tokio::select! {
                count = self.commands.recv_many(&mut commands, COMMAND_BATCH) => {
                    if count == 0 {
                        return Ok(());
                    }
                    commands.drain(..).for_each(|command| self.handle(command));
                    self.drop_stale();
                }
                Some(result) = self.in_flight.join_next() => self.finish(result?),
                () = tokio::time::sleep_until(next), if may_send => self.send_due(),
            }
        }
    }

    fn handle(&mut self, command: HeartbeatCommand) {
        match command {
            HeartbeatCommand::Send { to, timing } => {
                self.schedule.push(Reverse((Instant::now() + self.delay(&to, timing), to)));
            }
            HeartbeatCommand::Forget(of) => {
                self.idle.remove(&of);
                self.failing.remove(&of);
                self.intervals.remove(&of);
                self.stale += 1;
            }
        }
    }

    /// Entries of incarnations that are gone leave the schedule when they are due. If there are many, they are
    /// dropped earlier, so that the schedule stays bounded by the registered instances.
    fn drop_stale(&mut self) {
        if self.stale <= self.schedule.len() / 2 + MAX_STALE {
            return;
        }
        self.stale = 0;
        let schedule = &mut self.schedule;
        self.catalog.with(|catalog, _| {
            schedule.retain(|Reverse((_, to))| catalog.to_check(to).is_some());
        });
    }

    fn delay(&self, to: &Incarnation, timing: HeartbeatTiming) -> Duration {
        let own = if self.intervals.is_empty() { None } else { self.intervals.get(to) };
        let interval = own.copied().unwrap_or(self.settings.interval);
        match timing {
            HeartbeatTiming::Now => Duration::ZERO,
            HeartbeatTiming::Spread => rand::rng().random_range(Duration::ZERO..=interval),
            HeartbeatTiming::Soon => rand::rng().random_range(Duration::ZERO..=SOON.min(interval)),
            // The jitter makes heartbeats that were sent together drift apart.
            HeartbeatTiming::Interval => interval.mul_f64(rand::rng().random_range(1.0 - JITTER..=1.0)),
            HeartbeatTiming::Gap => self.settings.gap,
        }
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        while self.in_flight.len() < self.settings.concurrency
            && self.schedule.peek().is_some_and(|Reverse((at, _))| *at <= now)
            && let Some(Reverse((_, to))) = self.schedule.pop()
        {
            let registered = self.catalog.with(|catalog, _| {
                let (info, is_removed) = catalog.to_check(&to)?;
                Some((info.clone(), catalog.newest_for(info), is_removed))
            });
            let idle = self.idle.remove(&to);
            let Some((info, newest, is_removed)) = registered else { continue };
            let revision = self.catalog.revision_of(newest);
            if !is_removed && let Some(interval) = check::interval(&info) {
                self.intervals.insert(to.clone(), interval);
            }
            let span = probe_span(&self.instruments.span_owner, &info);
            let probe = Probe { to, info, is_removed, revision, idle };
            self.in_flight.spawn(send(self.dialer.clone(), probe, self.settings.timeout).instrument(span));
        }
    }

    fn finish(&mut self, result: ProbeResult) {
        let ProbeResult { of, is_removed, duration, outcome, idle } = result;
        if let Some(idle) = idle
            && !is_removed
            && self.idle.len() < self.settings.keep_open
        {
            self.idle.insert(of.clone(), idle);
        }
        let mut counts = Vec::new();
        let result = match outcome {
            Ok(reply) => Ok(reply.map(|reply| {
                counts = reply.upstream;
                reply.heartbeat
            })),
            Err(Failure::Missed(why)) => Err(why),
            Err(Failure::NotSent(why)) => return self.not_sent(of, &why),
        };
        if is_removed {
            // Whether it is back is news; that it is still away is not.
            (self.report)(CatalogEvent::Heartbeat { of, result });
            return;
        }
        let (service, addr) = (&*of.key.name, &*of.key.addr);
        self.instruments.record_heartbeat(service, result.is_ok(), duration);
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        match &result {
            Err(reason) => {
                self.failing.insert(of.clone());
                tracing::warn!(service, addr, duration_ms, reason, "heartbeat failed");
            }
            Ok(_) if self.failing.remove(&of) => {
                tracing::info!(service, addr, duration_ms, "heartbeat recovered");
            }
            Ok(_) => {}
        }
        if (self.report)(CatalogEvent::Heartbeat { of: of.clone(), result }) == EventOutcome::Unknown {
            self.idle.remove(&of);
            self.failing.remove(&of);
            self.intervals.remove(&of);
        } else if !counts.is_empty() {
            (self.report)(CatalogEvent::UpstreamCounted { by: of.key, counts });
        }
    }

    /// Not the member's fault, and not counted as a miss. The catalogue requests another attempt.
    fn not_sent(&mut self, of: Incarnation, reason: &str) {
        if self.not_sent_logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            self.not_sent_logged = Some(Instant::now());
            tracing::error!(
                reason,
                "can't send heartbeats: out of file descriptors, ports or memory (not counted as missed)"
            );
        }
        (self.report)(CatalogEvent::HeartbeatNotSent(of));
    }
}

#[cfg(test)]
mod tests {
    use hubspoke_chassis::Metrics;
    use hubspoke_protocol::ServiceInfo;

    use super::*;
    use crate::catalog::Initiator;
    use crate::config::Settings;
    use crate::dispatch::Dispatcher;

    #[tokio::test]
    async fn the_schedule_is_bounded_by_the_registered_instances() {
        let mut settings = Settings::default();
        settings.heartbeat.interval = Duration::from_secs(3600); // nothing is due in this test
        let metrics = Metrics::new("registry", "test").unwrap();
        let (dispatcher, commands) = Dispatcher::new(&settings, 1, &metrics, MemberDialer::default());
        let mut heartbeats = Heartbeats::new(
            dispatcher.catalog.clone(),
            commands,
            settings.heartbeat,
            dispatcher.instruments.clone(),
            MemberDialer::default(),
            |_| EventOutcome::Unchanged,
        );
        let info = |i: usize| ServiceInfo::new("log", format!("10.0.0.1:{i}"));
        for i in 1..=50 {
            dispatcher.register(info(i), None, None).unwrap();
        }
        for i in 51..10_000 {
            dispatcher.register(info(i), None, None).unwrap();
            let key = InstanceKey::new("log", &info(i).addr);
            dispatcher
                .apply(
                    CatalogEvent::Deregister { key, id: None, by: Initiator::Instance(String::new()) },
                    None,
                )
                .unwrap();
            while let Ok(command) = heartbeats.commands.try_recv() {
                heartbeats.handle(command);
                heartbeats.drop_stale();
            }
            let scheduled = heartbeats.schedule.len();
            assert!(scheduled <= 2 * (50 + MAX_STALE) + 2, "{scheduled}");
        }
        heartbeats.stale = usize::MAX;
        heartbeats.drop_stale();
        assert_eq!(heartbeats.schedule.len(), 50, "registered instances stay scheduled");
    }
}
