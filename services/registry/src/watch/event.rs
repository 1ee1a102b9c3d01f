//! The events of the watch stream, each rendered at its first use.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use hubspoke_protocol::{ChangeView, HeardView, Load, LoadView, RegistriesView, Revision};
use serde::Serialize;

use crate::catalog::{Change, InstanceKey, Time};
use crate::event_stream;
use crate::shared::SharedCatalog;
use crate::view::{self, WallClock};

/// An answered heartbeat.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnsweredHeartbeat {
    pub(super) at: Time,
    pub(super) load: Option<Load>,
}

/// One event.
#[derive(Debug)]
pub(super) enum WatchEvent {
    /// One change.
    Change { change: Change, text: OnceLock<Bytes> },
    /// The heartbeats answered since the last one. `text` is for watchers of all services.
    Load { heartbeats: Vec<(InstanceKey, AnsweredHeartbeat)>, clock: WallClock, text: OnceLock<Bytes> },
    /// The state of self-protection.
    Protection(Bytes),
    /// The registries that share the store.
    Registries(Bytes),
    /// Another epoch has begun: the stream ends.
    Restarted,
}

/// The filter of a watcher, and the point to resume from.
#[derive(Debug, Clone, Default)]
pub(crate) struct WatchFilter {
    /// These services; all if empty.
    pub(crate) services: Vec<String>,
    /// The last revision that it has seen.
    pub(crate) last: Option<Revision>,
}

impl WatchFilter {
    fn includes(&self, name: &str) -> bool {
        self.services.is_empty() || self.services.iter().any(|service| service == name)
    }
}

impl WatchEvent {
    pub(super) fn change(change: Change) -> Self {
        Self::Change { change, text: OnceLock::new() }
    }

    pub(super) fn load(
        heartbeats: impl IntoIterator<Item = (InstanceKey, AnsweredHeartbeat)>,
        clock: WallClock,
    ) -> Self {
        Self::Load { heartbeats: heartbeats.into_iter().collect(), clock, text: OnceLock::new() }
    }

    pub(super) fn protection(catalog: &SharedCatalog) -> Self {
        Self::Protection(text("protection", None, &view::protection(catalog)))
    }

    pub(super) fn registries(view: &RegistriesView) -> Self {
        Self::Registries(text("registries", None, view))
    }

    /// The revision, if this is a change.
    pub(super) fn revision(&self) -> Option<u64> {
        match self {
            Self::Change { change, .. } => Some(change.revision),
            Self::Load { .. } | Self::Protection(_) | Self::Registries(_) | Self::Restarted => None,
        }
    }

    /// The event for one watcher, unless it is filtered out. `included` is the revision of the snapshot that it had.
    pub(super) fn text_for(
        &self,
        catalog: &SharedCatalog,
        filter: &WatchFilter,
        included: u64,
    ) -> Option<Bytes> {
        match self {
            Self::Change { change, text } => {
                let is_news = change.revision > included && filter.includes(&change.instance.info.name);
                is_news.then(|| text.get_or_init(|| change_text(catalog, change)).clone())
            }
            Self::Load { heartbeats, clock, text } if filter.services.is_empty() => {
                Some(text.get_or_init(|| load_text(heartbeats, *clock)).clone())
            }
            Self::Load { heartbeats, clock, .. } => {
                let included = |(key, _): &&(InstanceKey, _)| filter.includes(&key.name);
                let mut heartbeats = heartbeats.iter().filter(included).peekable();
                // Not shared with others, so it counts; the next one is as good.
                heartbeats
                    .peek()
                    .is_some()
                    .then(|| catalog.unread(load_text(heartbeats, *clock).into()))
                    .flatten()
            }
            Self::Protection(text) | Self::Registries(text) => Some(text.clone()),
            Self::Restarted => None,
        }
    }
}

/// The whole catalogue for one watcher, and its revision. `None` if other clients hold too much that they have not read.
pub(super) async fn snapshot(catalog: &SharedCatalog, filter: &WatchFilter) -> Option<(Bytes, u64)> {
    let only = (!filter.services.is_empty()).then_some(filter.services.as_slice());
    let _permit = if only.is_none() { catalog.view_permit().await } else { None };
    let view = view::catalog(catalog, only);
    let text = text("snapshot", Some(view.revision), &view);
    Some((catalog.unread(text.into())?, view.revision.n))
}

fn change_text(catalog: &SharedCatalog, change: &Change) -> Bytes {
    let clock = catalog.with(|_, now| WallClock::new(now));
    let mut instance = view::instance(&change.instance, change.removed, clock);
    // The earlier ones were in the events before.
    instance.reasons.drain(..instance.reasons.len().saturating_sub(1));
    let revision = catalog.revision_of(change.revision);
    text("change", Some(revision), &ChangeView { revision, kind: change.kind, instance })
}

fn load_text<'a>(
    heartbeats: impl IntoIterator<Item = &'a (InstanceKey, AnsweredHeartbeat)>,
    clock: WallClock,
) -> Bytes {
    let mut services: BTreeMap<String, BTreeMap<String, HeardView>> = BTreeMap::new();
    for (key, AnsweredHeartbeat { at, load }) in heartbeats {
        let view = HeardView { last_heartbeat: clock.format(*at), load: *load };
        services.entry(key.name.to_string()).or_default().insert(key.addr.to_string(), view);
    }
    text("load", None, &LoadView { services })
}

fn text(name: &str, id: Option<Revision>, data: &impl Serialize) -> Bytes {
    event_stream::event(name, id, &serde_json::to_vec(data).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn load_is_rendered_once_for_all_watchers_without_a_filter() {
        let catalog = SharedCatalog::new(Settings::default(), 1);
        let (at, load) = (Time::default(), Some(Load { requests: 1, in_flight: Some(0) }));
        let heartbeats =
            ["a", "b"].map(|name| (InstanceKey::new(name, "10.0.0.1:80"), AnsweredHeartbeat { at, load }));
        let event = WatchEvent::load(heartbeats, WallClock::new(Time::default()));
        let text = |services: &[&str]| {
            let services = services.iter().map(|&name| name.to_owned()).collect();
            event.text_for(&catalog, &WatchFilter { services, last: None }, 0)
        };
        let (one, two) = (text(&[]).unwrap(), text(&[]).unwrap());
        assert_eq!(one.as_ptr(), two.as_ptr());
        let filtered = text(&["b"]).unwrap();
        assert!(
            filtered.len() < one.len() && filtered.starts_with(b"event: load\ndata: {\"Services\":{\"b\"")
        );
        assert_eq!(text(&["c"]), None);
    }
}
