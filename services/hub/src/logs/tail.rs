//! New entries: a stream from each log instance, also from those that join later.

use std::collections::BTreeMap;

use hubspoke_client::log::LOG_SERVICE;
use hubspoke_protocol::sse::Event;
use hubspoke_protocol::{InstanceState, InstanceView};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::args::{LogsArgs, encode};
use super::entry;
use super::render::{EntryFormat, render};
use super::reorder::ReorderBuffer;
use crate::admin_client::AdminClient;
use crate::catalog_update::CatalogUpdate;
use crate::event_source::{EventSource, StreamUpdate};
use crate::outage::{OutageReport, OutageReporter};
use crate::output::{print, remark};
use crate::text::{one_line, refusal};

/// Streams begin this long before the command did, because clocks differ. Entries that were printed already
/// are known by their numbers.
const OVERLAP: SignedDuration = SignedDuration::from_secs(60);
/// How long an instance that has left is still followed: it logs while it shuts down.
const LINGER: Duration = Duration::from_secs(2);
/// Updates that may be queued.
const QUEUED: usize = 1024;

/// Prints entries as they arrive. Returns only if stdout or a reader fails.
pub(super) async fn follow(
    args: &LogsArgs,
    registry: &AdminClient,
    format: &EntryFormat,
    started: Timestamp,
    mut buffer: ReorderBuffer,
) -> anyhow::Result<()> {
    let mut catalog = registry.watch(Some(LOG_SERVICE));
    let (updates, mut received) = mpsc::channel(QUEUED);
    let mut tails = TailSet {
        query: query(args, started, &buffer),
        registry,
        updates,
        running: JoinSet::new(),
        by_addr: BTreeMap::new(),
        left: Vec::new(),
    };
    let the_registry = format!("the registry at {}", registry.url());
    let mut outages = OutageReporter::default();
    let clock = Instant::now();
    loop {
        let due = buffer.next_at().into_iter().chain(outages.next_at()).min();
        tokio::select! {
            update = catalog.next() => match update? {
                StreamUpdate::Connected => outages.back(&the_registry, clock.elapsed()),
                StreamUpdate::Event(event) => match CatalogUpdate::parse(&event)? {
                    Some(CatalogUpdate::Snapshot(view)) => tails.replace(view.services.values().flatten()),
                    Some(CatalogUpdate::Change(change)) => tails.change(&change.instance),
                    _ => {}
                },
                // Known instances are still followed.
                StreamUpdate::Disconnected { reason } => {
                    outages.lost(&the_registry, reason, clock.elapsed());
                }
            },
            Some((addr, update)) = received.recv() => match update {
                StreamUpdate::Event(event) => add(&mut buffer, event, clock.elapsed()),
                StreamUpdate::Connected => outages.back(&instance_name(&addr), clock.elapsed()),
                // One that has left is followed for a moment, and may end.
                StreamUpdate::Disconnected { .. } if !tails.by_addr.contains_key(&addr) => {}
                StreamUpdate::Disconnected { reason } => {
                    outages.lost(&instance_name(&addr), reason, clock.elapsed());
                }
            },
            Some(ended) = tails.running.join_next(), if !tails.running.is_empty() => {
                // A task may be aborted, but must not panic.
                if let Err(error) = ended && !error.is_cancelled() {
                    return Err(error.into());
                }
            }
            () = sleep_until(clock + due.unwrap_or_default()), if due.is_some() => {}
        }
        for addr in tails.left.drain(..) {
            outages.forget(&instance_name(&addr));
        }
        let now = clock.elapsed();
        match outages.report(now) {
            Some(OutageReport::Lost { names, reason }) => {
                remark(&format!("can't follow {names}: {reason}; retrying"));
            }
            Some(OutageReport::Back { names }) => remark(&format!("following {names} again")),
            None => {}
        }
        let mut text = String::new();
        while let Some((entry, line)) = buffer.next(now) {
            text += &render(&entry, &line, format, Timestamp::now());
        }
        if !text.is_empty() {
            print(&text)?;
        }
    }
}

fn query(args: &LogsArgs, started: Timestamp, buffer: &ReorderBuffer) -> String {
    let mut query = args.filters();
    // With -n 0 nothing was printed before, so all of the overlap would be new.
    let overlap = if args.lines == Some(0) { SignedDuration::ZERO } else { OVERLAP };
    query.push(("since", started.checked_sub(overlap).unwrap_or(started).to_string()));
    let cursors: Vec<_> = buffer.last().map(|(instance, seq)| format!("{instance}:{seq}")).collect();
    if !cursors.is_empty() {
        query.push(("cursor", cursors.join(",")));
    }
    encode(query)
}

fn add(buffer: &mut ReorderBuffer, event: Event, now: Duration) {
    if event.name == "dropped" {
        let missed = serde_json::from_str::<serde_json::Value>(&event.data).ok();
        let missed = missed.and_then(|data| data.get("dropped")?.as_u64()).unwrap_or_default();
        let (instance, _) = event.id.rsplit_once(':').unwrap_or((&event.id, ""));
        remark(&format!(
            "{missed} entries of {} were dropped: they arrived too fast",
            one_line(instance, 60)
        ));
    } else if event.name == "gap" {
        let after = serde_json::from_str::<serde_json::Value>(&event.data).ok();
        let after = after.and_then(|data| Some(data.get("after")?.as_str()?.to_owned())).unwrap_or_default();
        remark(&format!(
            "entries after {} are missing: another log instance answers now",
            one_line(&after, 60)
        ));
    } else if let Some(entry) = entry::parse(&event.data) {
        buffer.add(entry, event.data, now);
    }
}

/// A log instance in a report.
fn instance_name(addr: &str) -> String {
    format!("the log instance at {}", one_line(addr, 60))
}

/// A stream from each instance. Dropped, all end.
struct TailSet<'a> {
    query: String,
    registry: &'a AdminClient,
    updates: mpsc::Sender<(String, StreamUpdate)>,
    running: JoinSet<()>,
    by_addr: BTreeMap<String, tokio::task::AbortHandle>,
    /// Addresses of those that are no longer followed, until somebody takes them from here.
    left: Vec<String>,
}

impl TailSet<'_> {
    /// Follows these instances and no others.
    fn replace<'a>(&mut self, instances: impl Iterator<Item = &'a InstanceView> + Clone) {
        for instance in instances.clone() {
            self.change(instance);
        }
        self.by_addr.retain(|addr, task| {
            let present = instances.clone().any(|instance| instance.info.addr == *addr);
            if !present {
                task.abort();
                self.left.push(addr.clone());
            }
            present
        });
    }

    /// Starts or stops to follow an instance.
    fn change(&mut self, instance: &InstanceView) {
        let addr = &instance.info.addr;
        if instance.state == InstanceState::Removed {
            if let Some(task) = self.by_addr.remove(addr) {
                self.left.push(addr.clone());
                self.running.spawn(async move {
                    sleep(LINGER).await;
                    task.abort();
                });
            }
        } else if !self.by_addr.contains_key(addr) {
            let url = format!("{}/{LOG_SERVICE}/tail?{}", self.registry.log_url(addr), self.query);
            let stream = self.registry.events(url, |status, _, body| refusal(status, body));
            let task = self.running.spawn(forward(addr.clone(), stream, self.updates.clone()));
            self.by_addr.insert(addr.clone(), task);
        }
    }
}

/// Forwards the updates of an instance's stream until the receiver is dropped.
async fn forward(addr: String, mut stream: EventSource, updates: mpsc::Sender<(String, StreamUpdate)>) {
    while let Ok(update) = stream.next().await {
        if updates.send((addr.clone(), update)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_history_following_begins_now() {
        let started: Timestamp = "2026-11-23T08:10:00Z".parse().unwrap();
        let since = |lines| {
            let mut args = LogsArgs::default();
            args.lines = lines;
            query(&args, started, &ReorderBuffer::default())
        };
        assert_eq!(since(Some(0)), "since=2026-11-23T08%3A10%3A00Z");
        assert_eq!(since(Some(1)), "since=2026-11-23T08%3A09%3A00Z");
    }
}
