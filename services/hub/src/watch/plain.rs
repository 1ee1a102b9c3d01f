//! The catalogue and its changes as text: for pipes, files, and `--once`. Pure.

use std::collections::BTreeMap;

use hubspoke_protocol::sse::Event;
use hubspoke_protocol::{CatalogView, InstanceState, InstanceView};
use jiff::Timestamp;
use serde_json::json;
use serde_json::value::RawValue;

use super::feed::Update;
use super::model::said;
use crate::text::one_line;
use crate::{admin, status, table};

/// Longest text of others on one line.
const MAX: usize = 200;

/// One line for each thing that an update says; none for load, which would be a line for every heartbeat.
pub(super) fn lines(update: &Update, now: Timestamp) -> String {
    match update {
        Update::Snapshot(catalog) => {
            let instances = catalog.services.values().flatten();
            instances.map(|instance| line(now, &name(instance), &present(instance))).collect()
        }
        Update::Change(change) => {
            let detail = change.instance.reasons.last().map_or("", |reason| &reason.detail);
            let what = said(change.kind).0;
            let what = if detail.is_empty() { what.to_owned() } else { format!("{what}: {detail}") };
            line(now, &name(&change.instance), &what)
        }
        Update::Load(_) => String::new(),
        Update::Protection(protection) => line(now, "registry", &admin::said(protection)),
    }
}

/// `TIME WHO WHAT`
pub(super) fn line(now: Timestamp, who: &str, what: &str) -> String {
    format!("{now:.0} {} {}\n", one_line(who, MAX), one_line(what, MAX))
}

fn name(instance: &InstanceView) -> String {
    format!("{}/{}", instance.info.name, instance.info.id())
}

fn present(instance: &InstanceView) -> String {
    format!("{} at {}", status::state(instance.state), instance.info.addr)
}

/// An event as a JSON line. Its data is passed on as it came.
pub(super) fn json(event: &Event) -> serde_json::Result<String> {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        event: &'a str,
        id: &'a str,
        data: &'a RawValue,
    }
    let data = serde_json::from_str(&event.data)?;
    Ok(serde_json::to_string(&Line { event: &event.name, id: &event.id, data })? + "\n")
}

/// That the registry is away, as a JSON line.
pub(super) fn json_away(why: &str) -> serde_json::Result<String> {
    Ok(serde_json::to_string(&json!({"event": "away", "id": "", "data": {"why": why}}))? + "\n")
}

/// The catalogue as a table, with each instance's share of its service's requests since they started.
pub(super) fn table(view: &CatalogView, now: Timestamp) -> String {
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for instance in view.services.values().flatten() {
        *totals.entry(&instance.info.name).or_default() += requests(instance);
    }
    let instances: Vec<_> = view.services.values().flatten().collect();
    if instances.is_empty() {
        return format!("no instance is registered (revision {})\n", view.revision);
    }
    let row = |instance: &&InstanceView| {
        let info = &instance.info;
        let total = totals.get(info.name.as_str()).copied().unwrap_or(0);
        let share = 100.0 * requests(instance) as f64 / total.max(1) as f64;
        let beat = instance.last_heartbeat.as_ref().map_or("-".to_owned(), |at| status::age(at, now));
        vec![
            info.name.clone(),
            one_line(info.id(), MAX),
            info.addr.clone(),
            status::state(instance.state).to_owned(),
            status::age(&instance.registered, now),
            beat,
            instance.load.map_or("-".to_owned(), |load| load.requests.to_string()),
            if total > 0 && instance.state != InstanceState::Removed {
                format!("{share:.1} %")
            } else {
                "-".to_owned()
            },
            instance.load.map_or("-".to_owned(), |load| load.in_flight.to_string()),
        ]
    };
    let rows: Vec<_> = instances.iter().map(row).collect();
    table::layout(
        &["SERVICE", "INSTANCE", "ADDRESS", "STATE", "UP", "HEARTBEAT", "REQUESTS", "SHARE", "IN FLIGHT"],
        &rows,
    )
}

fn requests(instance: &InstanceView) -> u64 {
    instance.load.filter(|_| instance.state != InstanceState::Removed).map_or(0, |load| load.requests)
}

#[cfg(test)]
mod tests {
    use hubspoke_protocol::ReasonKind;

    use super::super::model::tests::{at, catalog, change, heard, instance};
    use super::*;

    #[test]
    fn a_line_for_each_change_and_none_for_load() {
        let log = instance("log", 1, 7);
        assert_eq!(
            lines(&catalog(vec![log.clone(), instance("visit", 1, 0)]), at(1)),
            "2026-11-23T08:00:01Z log/log-1 passing at 127.0.0.1:4001\n\
             2026-11-23T08:00:01Z visit/visit-1 passing at 127.0.0.1:4001\n"
        );
        assert_eq!(lines(&heard(&log, 15, 8, 0), at(15)), "");
        assert_eq!(
            lines(&change(log, 20, ReasonKind::Removed, "no answer\nin 1 s"), at(20)),
            "2026-11-23T08:00:20Z log/log-1 removed: no answer in 1 s\n"
        );
    }

    #[test]
    fn json_lines_pass_the_data_on() {
        let data = r#"{"Services":{},"Later":1.0}"#.to_owned();
        let event = Event { name: "snapshot".to_owned(), id: "1.2".to_owned(), data };
        assert_eq!(
            json(&event).unwrap(),
            "{\"event\":\"snapshot\",\"id\":\"1.2\",\"data\":{\"Services\":{},\"Later\":1.0}}\n"
        );
        assert!(json(&Event { data: "no JSON".to_owned(), ..event }).is_err());
        assert_eq!(
            json_away("a \"b\"").unwrap(),
            "{\"data\":{\"why\":\"a \\\"b\\\"\"},\"event\":\"away\",\"id\":\"\"}\n"
        );
    }

    #[test]
    fn the_table_has_each_instances_share() {
        let mut gone = instance("log", 3, 500);
        gone.state = InstanceState::Removed;
        let mut silent = instance("plain", 1, 0);
        silent.load = None;
        silent.last_heartbeat = None;
        let Update::Snapshot(view) =
            catalog(vec![instance("log", 1, 30), instance("log", 2, 10), gone, silent])
        else {
            unreachable!()
        };
        assert_eq!(
            table(&view, at(70)),
            "\
SERVICE  INSTANCE  ADDRESS         STATE    UP  HEARTBEAT  REQUESTS  SHARE   IN FLIGHT
log      log-1     127.0.0.1:4001  passing  1m  1m         30        75.0 %  0
log      log-2     127.0.0.1:4002  passing  1m  1m         10        25.0 %  0
log      log-3     127.0.0.1:4003  removed  1m  1m         500       -       0
plain    plain-1   127.0.0.1:4001  passing  1m  -          -         -       -
"
        );
    }
}
