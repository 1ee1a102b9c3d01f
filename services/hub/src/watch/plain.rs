//! The catalogue and its changes as lines of text or JSON, for pipes, files and `--once`. Pure.

use std::collections::BTreeMap;

use hubspoke_protocol::sse::Event;
use hubspoke_protocol::{CatalogView, InstanceState, InstanceView};
use jiff::Timestamp;
use serde_json::json;
use serde_json::value::RawValue;

use crate::catalog_update::CatalogUpdate;
use crate::outage::OutageReport;
use crate::text::one_line;
use crate::{describe, table};

/// Longest cell or part of a line, in characters.
const MAX: usize = 200;

/// A line per instance or change. None for load, which would be a line per heartbeat.
pub(super) fn lines(update: &CatalogUpdate, now: Timestamp) -> String {
    match update {
        CatalogUpdate::Snapshot(catalog) => {
            let present = |instance: &InstanceView| format!("{} at {}", instance.state, instance.info.addr);
            let instances = catalog.services.values().flatten();
            instances.map(|instance| line(now, &describe::name(instance), &present(instance))).collect()
        }
        CatalogUpdate::Change(change) => {
            let detail = change.instance.reasons.last().map_or("", |reason| &reason.detail);
            line(now, &describe::name(&change.instance), &describe::reason(change.kind, detail))
        }
        CatalogUpdate::Load(_) => String::new(),
        CatalogUpdate::Protection(protection) => line(now, "registry", &describe::protection(protection)),
    }
}

/// `TIME SUBJECT WHAT`
pub(super) fn line(now: Timestamp, subject: &str, what: &str) -> String {
    format!("{now:.0} {} {}\n", one_line(subject, MAX), one_line(what, MAX))
}

/// An event as a JSON line. Its data is passed on unchanged.
pub(super) fn json(event: &Event) -> serde_json::Result<String> {
    #[derive(serde::Serialize)]
    struct JsonEvent<'a> {
        event: &'a str,
        id: &'a str,
        data: &'a RawValue,
    }
    let data = serde_json::from_str(&event.data)?;
    Ok(serde_json::to_string(&JsonEvent { event: &event.name, id: &event.id, data })? + "\n")
}

/// A line that reports that the registry is unreachable, or no longer so.
pub(super) fn outage(report: &OutageReport, now: Timestamp) -> String {
    line(now, "registry", &outage_text(report))
}

/// The same as a JSON line: `away` or `back`.
pub(super) fn json_outage(report: &OutageReport) -> serde_json::Result<String> {
    let event = match report {
        OutageReport::Lost { .. } => json!({"event": "away", "id": "", "data": {"why": outage_text(report)}}),
        OutageReport::Back { .. } => json!({"event": "back", "id": "", "data": {}}),
    };
    Ok(serde_json::to_string(&event)? + "\n")
}

fn outage_text(report: &OutageReport) -> String {
    match report {
        OutageReport::Lost { names, reason } => format!("{names} is unreachable: {reason}; retrying"),
        OutageReport::Back { names } => format!("{names} is reachable again"),
    }
}

/// The catalogue as a table, with each instance's share of the requests that its service has served.
pub(super) fn table(view: &CatalogView, now: Timestamp) -> String {
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for instance in view.services.values().flatten() {
        *totals.entry(&instance.info.name).or_default() += requests(instance);
    }
    let instances: Vec<_> = view.services.values().flatten().collect();
    if instances.is_empty() {
        return format!("no instances are registered (revision {})\n", view.revision);
    }
    let row = |instance: &&InstanceView| {
        let info = &instance.info;
        let total = totals.get(info.name.as_str()).copied().unwrap_or(0);
        let share = 100.0 * requests(instance) as f64 / total.max(1) as f64;
        let heartbeat = instance.last_heartbeat.as_ref().map_or("-".to_owned(), |at| describe::age(at, now));
        vec![
            info.name.clone(),
            one_line(info.id(), MAX),
            one_line(&info.addr, MAX),
            instance.state.to_string(),
            describe::age(&instance.registered, now),
            heartbeat,
            instance.load.map_or("-".to_owned(), |load| load.requests.to_string()),
            if total > 0 && instance.state != InstanceState::Removed {
                format!("{share:.1} %")
            } else {
                "-".to_owned()
            },
            instance.load.and_then(|load| load.in_flight).map_or("-".to_owned(), |count| count.to_string()),
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

    use super::super::model::tests::{at, catalog, change, heartbeat, instance};
    use super::*;

    #[test]
    fn a_line_for_each_change_and_none_for_load() {
        let log = instance("log", 1, 7);
        assert_eq!(
            lines(&catalog(vec![log.clone(), instance("visit", 1, 0)]), at(1)),
            "2026-11-23T08:00:01Z log/log-1 passing at 127.0.0.1:4001\n\
             2026-11-23T08:00:01Z visit/visit-1 passing at 127.0.0.1:4001\n"
        );
        assert_eq!(lines(&heartbeat(&log, 15, 8, 0), at(15)), "");
        assert_eq!(
            lines(&change(log, 20, ReasonKind::Removed, "no answer\nin 1 s"), at(20)),
            "2026-11-23T08:00:20Z log/log-1 removed: no answer in 1 s\n"
        );
    }

    #[test]
    fn json_lines_pass_the_data_on_unchanged() {
        let data = r#"{"Services":{},"Later":1.0}"#.to_owned();
        let event = Event { name: "snapshot".to_owned(), id: "1.2".to_owned(), data };
        assert_eq!(
            json(&event).unwrap(),
            "{\"event\":\"snapshot\",\"id\":\"1.2\",\"data\":{\"Services\":{},\"Later\":1.0}}\n"
        );
        assert!(json(&Event { data: "invalid".to_owned(), ..event }).is_err());
        let lost = OutageReport::Lost { names: "URL".to_owned(), reason: "a \"b\"\nc".to_owned() };
        let back = OutageReport::Back { names: "URL".to_owned() };
        assert_eq!(
            json_outage(&lost).unwrap(),
            "{\"data\":{\"why\":\"URL is unreachable: a \\\"b\\\"\\nc; retrying\"},\"event\":\"away\",\"id\":\"\"}\n"
        );
        assert_eq!(json_outage(&back).unwrap(), "{\"data\":{},\"event\":\"back\",\"id\":\"\"}\n");
        assert_eq!(
            outage(&lost, at(1)),
            "2026-11-23T08:00:01Z registry URL is unreachable: a \"b\" c; retrying\n"
        );
        assert_eq!(outage(&back, at(2)), "2026-11-23T08:00:02Z registry URL is reachable again\n");
    }

    #[test]
    fn the_table_has_each_instances_share() {
        let mut gone = instance("log", 3, 500);
        gone.state = InstanceState::Removed;
        let mut silent = instance("plain", 1, 0);
        silent.load = None;
        silent.last_heartbeat = None;
        let CatalogUpdate::Snapshot(view) =
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
