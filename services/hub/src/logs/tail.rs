//! The entries to come: a stream from each log instance, those that join later included.

use std::collections::BTreeMap;

use hubspoke_client::log::LOG_SERVICE;
use hubspoke_protocol::sse::Event;
use hubspoke_protocol::{InstanceState, InstanceView};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::entry::{self, Look};
use super::merge::Merge;
use super::{Args, encode, say};
use crate::admin::Registry;
use crate::event_source::{EventSource, StreamUpdate};
use crate::print;
use crate::text::one_line;
use crate::watch::feed::{self, Update};

/// Streams begin so long before the command did: clocks differ, and what was seen already is known by its number.
const OVERLAP: SignedDuration = SignedDuration::from_secs(60);
/// An instance that has deregistered is followed for so long.
const LEAVING: Duration = Duration::from_secs(2);
/// Events that may wait to be shown.
const WAITING: usize = 1024;

/// Shows entries as they come, until the registry's or an instance's reader dies.
pub(super) async fn follow(
    args: &Args,
    registry: &Registry,
    look: Look,
    begun: Timestamp,
    mut merge: Merge,
) -> anyhow::Result<()> {
    let mut catalog = registry.watch(Some(LOG_SERVICE));
    let (out, mut events) = mpsc::channel(WAITING);
    let mut tails = Tails {
        query: query(args, begun, &merge),
        registry,
        out,
        running: JoinSet::new(),
        by_addr: BTreeMap::new(),
    };
    let mut away = false;
    let start = Instant::now();
    loop {
        let due = merge.next_at();
        tokio::select! {
            said = catalog.next() => match said? {
                StreamUpdate::Connected => away = false,
                StreamUpdate::Event(event) => match feed::read(&event)? {
                    Some(Update::Snapshot(view)) => tails.only(view.services.values().flatten()),
                    Some(Update::Change(change)) => tails.change(&change.instance),
                    _ => {}
                },
                // Those that are known are followed on; said once for each time that it goes away.
                StreamUpdate::Disconnected { .. } if away => {}
                StreamUpdate::Disconnected { reason: why } => {
                    away = true;
                    say(&format!("{} is away: {why}", registry.url()));
                }
            },
            Some((addr, event)) = events.recv() => match event {
                Tell::Event(event) => take(&mut merge, event, start.elapsed()),
                Tell::Away(why) => say(&format!("{LOG_SERVICE} at {addr} is away: {why}")),
            },
            Some(ended) = tails.running.join_next(), if !tails.running.is_empty() => {
                // One that was stopped is fine; one that died is not.
                if let Err(error) = ended && !error.is_cancelled() {
                    return Err(error.into());
                }
            }
            () = sleep_until(start + due.unwrap_or_default()), if due.is_some() => {}
        }
        let now = start.elapsed();
        let mut text = String::new();
        while let Some((entry, line)) = merge.next(now) {
            text += &entry::show(&entry, &line, look);
        }
        if !text.is_empty() {
            print(&text)?;
        }
    }
}

fn query(args: &Args, begun: Timestamp, merge: &Merge) -> String {
    let mut query = args.filters();
    // Without a look at the past nothing of the overlap is known, and all of it would be shown.
    let overlap = if args.lines == Some(0) { SignedDuration::ZERO } else { OVERLAP };
    query.push(("since", begun.checked_sub(overlap).unwrap_or(begun).to_string()));
    let cursors: Vec<_> = merge.last().map(|(instance, seq)| format!("{instance}:{seq}")).collect();
    if !cursors.is_empty() {
        query.push(("cursor", cursors.join(",")));
    }
    encode(query)
}

fn take(merge: &mut Merge, event: Event, now: Duration) {
    if event.name == "dropped" {
        let missed = serde_json::from_str::<serde_json::Value>(&event.data).ok();
        let missed = missed.and_then(|data| data.get("dropped")?.as_u64()).unwrap_or_default();
        let (instance, _) = event.id.rsplit_once(':').unwrap_or((&event.id, ""));
        say(&format!("{missed} entries of {} came too fast and are left out", one_line(instance, 60)));
    } else if let Some(entry) = entry::read(&event.data) {
        merge.add(entry, event.data, now);
    }
}

/// What a stream tells.
enum Tell {
    Event(Event),
    Away(String),
}

/// A stream from each instance. Dropped, all end.
struct Tails<'a> {
    query: String,
    registry: &'a Registry,
    out: mpsc::Sender<(String, Tell)>,
    running: JoinSet<()>,
    by_addr: BTreeMap<String, tokio::task::AbortHandle>,
}

impl Tails<'_> {
    /// Follows these and no others.
    fn only<'a>(&mut self, instances: impl Iterator<Item = &'a InstanceView> + Clone) {
        for instance in instances.clone() {
            self.change(instance);
        }
        self.by_addr.retain(|addr, task| {
            let there = instances.clone().any(|instance| instance.info.addr == *addr);
            if !there {
                task.abort();
            }
            there
        });
    }

    /// An instance is there, or no longer.
    fn change(&mut self, instance: &InstanceView) {
        let addr = &instance.info.addr;
        if instance.state == InstanceState::Removed {
            if let Some(task) = self.by_addr.remove(addr) {
                // What it still finishes, and logs, is worth a moment.
                self.running.spawn(async move {
                    sleep(LEAVING).await;
                    task.abort();
                });
            }
        } else if !self.by_addr.contains_key(addr) {
            let url = format!("http://{addr}/{LOG_SERVICE}/tail?{}", self.query);
            let follow = EventSource::open(self.registry.http().clone(), url);
            let task = self.running.spawn(pass_on(addr.clone(), follow, self.out.clone()));
            self.by_addr.insert(addr.clone(), task);
        }
    }
}

/// Passes on what an instance's stream says until nobody listens.
async fn pass_on(addr: String, mut follow: EventSource, out: mpsc::Sender<(String, Tell)>) {
    let mut away = false;
    while let Ok(said) = follow.next().await {
        let tell = match said {
            StreamUpdate::Connected => {
                away = false;
                continue;
            }
            StreamUpdate::Event(event) => Tell::Event(event),
            StreamUpdate::Disconnected { .. } if away => continue,
            StreamUpdate::Disconnected { reason: why } => {
                away = true;
                Tell::Away(why)
            }
        };
        if out.send((addr.clone(), tell)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_look_at_the_past_following_begins_now() {
        let begun: Timestamp = "2026-11-23T08:10:00Z".parse().unwrap();
        let since = |lines| query(&Args { lines, ..Args::default() }, begun, &Merge::default());
        assert_eq!(since(Some(0)), "since=2026-11-23T08%3A10%3A00Z");
        assert_eq!(since(Some(1)), "since=2026-11-23T08%3A09%3A00Z");
    }
}
