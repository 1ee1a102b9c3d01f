//! `hub status`: the catalogue as a table, or as the registry's own JSON. Below the table: why an instance is
//! not passing or was removed. For one service or instance: its whole history.
//!
//! Ids, addresses and reasons are untrusted text: none of it reaches the terminal as a control sequence.

use std::str::FromStr;

use anyhow::bail;
use hubspoke_protocol::{
    CatalogView, InstanceState, InstanceView, Reason, ReasonKind, RegistriesView, check_name,
};
use jiff::Timestamp;

use crate::admin_client::AdminClient;
use crate::text::one_line;
use crate::{describe, table};

/// Longest cell or line, in characters.
const MAX: usize = 200;

/// A service, or one instance of it by its id or address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    service: String,
    instance: Option<String>,
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, instance) = match text.split_once('/') {
            Some((_, "")) => {
                return Err(
                    "expected SERVICE or SERVICE/INSTANCE, such as log or log/127.0.0.1:20002".to_owned()
                );
            }
            Some((service, instance)) => (service, Some(instance.to_owned())),
            None => (text, None),
        };
        check_name(service).map_err(|error| error.to_string())?;
        Ok(Self { service: service.to_owned(), instance })
    }
}

/// The catalogue, or a part of it, as text to print.
///
/// # Errors
/// If the registry can't be reached, answers anything but its catalogue, or does not know the selection.
pub(crate) async fn run(
    registry: &AdminClient,
    selection: Option<&Selection>,
    json: bool,
) -> anyhow::Result<String> {
    let service = selection.map(|selection| selection.service.as_str());
    let (mut view, text) = registry.catalog_with_json(service).await?;
    let instance = selection.and_then(|selection| Some((&selection.service, selection.instance.as_ref()?)));
    if let Some((service, wanted)) = instance {
        for list in view.services.values_mut() {
            let best = list.iter().map(|known| likeness(known, wanted)).max().unwrap_or_default();
            list.retain(|known| best > 0 && likeness(known, wanted) == best);
        }
        if view.services.values().all(Vec::is_empty) {
            bail!("{service} has no instance {wanted:?}, nor was one removed in the last minutes");
        }
    }
    Ok(match (json, selection, instance) {
        (true, _, None) => text,
        (true, ..) => serde_json::to_string(&view)? + "\n",
        (false, None, _) => render(&view, Timestamp::now()),
        (false, Some(_), _) => render(&view, Timestamp::now()) + &histories(&view),
    })
}

/// How well an instance fits an id or address that was asked for: exactly, by the beginning of its id, or because an
/// earlier start at its address had that id.
fn likeness(instance: &InstanceView, wanted: &str) -> u8 {
    let (id, addr) = (instance.info.id(), &instance.info.addr);
    let was = |reason: &Reason| reason.kind == ReasonKind::Replaced && reason.detail.contains(wanted);
    if id == wanted || addr == wanted {
        3
    } else if id.starts_with(wanted) {
        2
    } else {
        u8::from(instance.reasons.iter().any(was))
    }
}

/// The catalogue as a table, and below it the reasons for instances that are not passing. Ages are as of `now`.
fn render(view: &CatalogView, now: Timestamp) -> String {
    let instances: Vec<&InstanceView> = view.services.values().flatten().collect();
    if instances.is_empty() {
        let registries = view.registries.as_ref().map(|all| registries(all, now)).unwrap_or_default();
        return format!("no instances are registered (revision {})\n{registries}", view.revision);
    }
    let rows: Vec<Vec<String>> = instances.iter().map(|instance| row(instance, now)).collect();
    let header =
        ["SERVICE", "INSTANCE", "ADDRESS", "STATE", "UP", "HEARTBEAT", "REQUESTS", "IN FLIGHT", "REQUIRES"];
    let present = instances.iter().filter(|instance| instance.state != InstanceState::Removed).count();
    let mut text = format!(
        "{}\n{} of {}, revision {}\n",
        table::layout(&header, &rows),
        describe::count(present, "instance"),
        describe::count(view.services.len(), "service"),
        view.revision
    );
    for instance in instances.iter().filter(|instance| instance.state != InstanceState::Passing) {
        if let Some(reason) = instance.reasons.last() {
            let ago = describe::age(&reason.at, now);
            let what = describe::reason(reason.kind, &reason.detail);
            text += &one_line(&format!("{}: {what} ({ago} ago)", describe::name(instance)), MAX);
            text.push('\n');
        }
    }
    for instance in &instances {
        for warning in &instance.warnings {
            text += &one_line(&format!("{}: {warning}", describe::name(instance)), MAX);
            text.push('\n');
        }
    }
    if let Some(protection) = view.protection.as_ref().filter(|protection| protection.held_back > 0) {
        text += &(describe::protection(protection) + "\n");
    }
    text + &view.registries.as_ref().map(|all| registries(all, now)).unwrap_or_default()
}

/// The registries that share the catalogue, and whether etcd answers the one that is asked.
fn registries(view: &RegistriesView, now: Timestamp) -> String {
    let all = view.registries.iter().map(|registry| {
        let asked = if registry.asked { ", asked" } else { "" };
        format!("{} ({}{asked})", registry.addr, describe::count(registry.instances, "instance"))
    });
    let mut text = one_line(&format!("registries: {}", all.collect::<Vec<_>>().join(", ")), MAX) + "\n";
    if !view.etcd_up {
        let error = view.etcd_error.as_deref().unwrap_or_default();
        let age = describe::age(&view.etcd_since, now);
        let what = format!("etcd has not answered for {age}, so nobody can join: {error}");
        text += &(one_line(&what, MAX) + "\n");
    }
    text
}

/// The history of each instance, the oldest entry first.
fn histories(view: &CatalogView) -> String {
    let mut text = String::new();
    for instance in view.services.values().flatten() {
        let (name, addr) = (describe::name(instance), &instance.info.addr);
        text += &format!("\n{} at {}\n", one_line(&name, MAX), one_line(addr, MAX));
        for reason in &instance.reasons {
            let what = describe::reason(reason.kind, &reason.detail);
            text += &format!("  {}\n", one_line(&format!("{} {what}", reason.at), MAX));
        }
    }
    text
}

fn row(instance: &InstanceView, now: Timestamp) -> Vec<String> {
    let heartbeat = instance.last_heartbeat.as_ref();
    let load = |pick: fn(&hubspoke_protocol::Load) -> Option<u64>| {
        instance.load.as_ref().and_then(pick).map_or("-".to_owned(), |count| count.to_string())
    };
    vec![
        one_line(&instance.info.name, MAX),
        one_line(instance.info.id(), MAX),
        one_line(&instance.info.addr, MAX),
        instance.state.to_string(),
        describe::age(&instance.registered, now),
        heartbeat.map_or("-".to_owned(), |at| format!("{} ago", describe::age(at, now))),
        load(|load| Some(load.requests)),
        load(|load| load.in_flight),
        one_line(&instance.info.required_services.join(","), MAX),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_catalog(json: &str) -> serde_json::Result<CatalogView> {
        serde_json::from_str(json)
    }

    #[test]
    fn the_catalogue_as_a_table() {
        let view = parse_catalog(
            r#"{"Revision":"1f.9","Services":{
                "log":[{"Name":"log","Addr":"127.0.0.1:20002","RequiredServices":[],"Id":"log-1","State":"passing",
                        "Registered":"2026-11-23T08:00:00Z","LastHeartbeat":"2026-11-23T08:09:57Z",
                        "Load":{"Requests":42,"InFlight":1},"Reasons":[]}],
                "visit":[{"Name":"visit","Addr":"10.0.0.1:1","RequiredServices":["log","x"],"State":"suspect",
                        "Registered":"2026-11-21T08:00:00Z","Reasons":[]}]}}"#,
        )
        .unwrap();
        let text = render(&view, "2026-11-23T08:10:00Z".parse().unwrap());
        assert_eq!(
            text,
            "\
SERVICE  INSTANCE    ADDRESS          STATE    UP   HEARTBEAT  REQUESTS  IN FLIGHT  REQUIRES
log      log-1       127.0.0.1:20002  passing  10m  3s ago     42        1
visit    10.0.0.1:1  10.0.0.1:1       suspect  2d   -          -         -          log,x

2 instances of 2 services, revision 1f.9
"
        );
    }

    /// A removed log instance, a suspect one whose id holds control sequences, and a draining one.
    fn troubled() -> CatalogView {
        parse_catalog(
            r#"{"Revision":"1f.30","Services":{
                "log":[{"Name":"log","Addr":"127.0.0.1:1","RequiredServices":[],"Id":"log-1","State":"removed",
                        "Registered":"2026-11-23T08:00:00Z","Reasons":[
                          {"At":"2026-11-23T08:00:00.000Z","Kind":"registered"},
                          {"At":"2026-11-23T08:08:57.000Z","Kind":"missed-heartbeat","Detail":"no answer in 1 s"},
                          {"At":"2026-11-23T08:09:00.000Z","Kind":"removed","Detail":"3 heartbeats missed"}]},
                       {"Name":"log","Addr":"127.0.0.1:2","Id":"a\u001b[2J\nb","State":"suspect",
                        "Registered":"2026-11-23T08:00:00Z","Reasons":[
                          {"At":"2026-11-23T08:09:58.000Z","Kind":"held-back","Detail":"\u001b]0;x\u0007 others"}]},
                       {"Name":"log","Addr":"127.0.0.1:3","Id":"log-3","State":"draining",
                        "Registered":"2026-11-23T08:00:00Z","Reasons":[
                          {"At":"2026-11-23T08:05:00.000Z","Kind":"draining","Detail":"by an operator"}]}]},
                "Protection":{"Enabled":true,"Until":"2026-11-23T08:12:00Z","HeldBack":1}}"#,
        )
        .unwrap()
    }

    #[test]
    fn instances_that_do_not_pass_are_explained_below_the_table() {
        assert_eq!(
            render(&troubled(), "2026-11-23T08:10:00Z".parse().unwrap()),
            "\
SERVICE  INSTANCE  ADDRESS      STATE     UP   HEARTBEAT  REQUESTS  IN FLIGHT  REQUIRES
log      log-1     127.0.0.1:1  removed   10m  -          -         -
log      a [2J b   127.0.0.1:2  suspect   10m  -          -         -
log      log-3     127.0.0.1:3  draining  10m  -          -         -

2 instances of 1 service, revision 1f.30
log/log-1: removed: 3 heartbeats missed (1m ago)
log/a [2J b: suspect: ]0;x others (2s ago)
log/log-3: draining: by an operator (5m ago)
self-protection is on; 1 removal is held back until 2026-11-23T08:12:00Z at the latest
"
        );
    }

    #[test]
    fn an_instance_is_selected_by_its_id_the_beginning_of_its_id_or_an_earlier_one() {
        let instance = |id: &str, was: &str| -> InstanceView {
            let was = format!(r#"[{{"At":"","Kind":"replaced","Detail":"previous Id: \"{was}\""}}]"#);
            let text = format!(
                r#"{{"Name":"log","Addr":"h:1","Id":"{id}","State":"passing","Registered":"","Reasons":{was}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let log = instance("log-7b6a.2", "log-7b6a.1");
        for (wanted, expected) in
            [("log-7b6a.2", 3), ("h:1", 3), ("log-7b6a", 2), ("log-7b6a.1", 1), ("log-9", 0)]
        {
            assert_eq!(likeness(&log, wanted), expected, "{wanted}");
        }
    }

    #[test]
    fn warnings_are_below_the_table() {
        let view = serde_json::from_str::<CatalogView>(
            r#"{"Revision":"1f.9","Services":{"a":[{"Name":"a","Addr":"h:1","Id":"a-1","State":"passing",
                "Registered":"2026-11-23T08:00:00Z","Warnings":["unknown key RequiredService\u001b[2J"]}]}}"#,
        );
        let text = render(&view.unwrap(), "2026-11-23T08:10:00Z".parse().unwrap());
        assert!(text.ends_with("\na/a-1: unknown key RequiredService [2J\n"), "{text}");
    }

    #[test]
    fn the_history_of_each_selected_instance() {
        assert_eq!(
            histories(&troubled()),
            "
log/log-1 at 127.0.0.1:1
  2026-11-23T08:00:00.000Z registered
  2026-11-23T08:08:57.000Z missed a heartbeat: no answer in 1 s
  2026-11-23T08:09:00.000Z removed: 3 heartbeats missed

log/a [2J b at 127.0.0.1:2
  2026-11-23T08:09:58.000Z suspect: ]0;x others

log/log-3 at 127.0.0.1:3
  2026-11-23T08:05:00.000Z draining: by an operator
"
        );
    }

    #[test]
    fn an_empty_catalogue() {
        let view = parse_catalog(r#"{"Revision":"1.0","Services":{}}"#).unwrap();
        assert_eq!(render(&view, Timestamp::UNIX_EPOCH), "no instances are registered (revision 1.0)\n");
    }
}
