//! `hub status`: the catalogue as a table, or as the registry's own JSON. Why an instance is not passing, or is gone, is
//! said below the table; the whole history where a service or an instance is asked for.
//!
//! Ids, addresses and reasons are other people's text: nothing of it reaches the terminal as a control sequence.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use hubspoke_protocol::{CatalogView, InstanceState, InstanceView, Reason, SERVICES_PATH, check_name};
use jiff::Timestamp;

use crate::text::{self, one_line};
use crate::watch::said;
use crate::{admin, table};

/// How long the registry may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest text of others that is shown as one, in characters.
const MAX: usize = 200;

/// What is asked for: a service, or one instance of it, by its id or its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Which {
    service: String,
    instance: Option<String>,
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, instance) = match text.split_once('/') {
            Some((_, "")) => {
                return Err("SERVICE or SERVICE/INSTANCE, as in log or log/127.0.0.1:20002".to_owned());
            }
            Some((service, instance)) => (service, Some(instance.to_owned())),
            None => (text, None),
        };
        check_name(service).map_err(|error| error.to_string())?;
        Ok(Self { service: service.to_owned(), instance })
    }
}

/// What the registry at `url` knows, as text to print.
///
/// # Errors
/// Where the registry can't be reached, answers anything but its catalogue, or does not know what is asked for.
pub async fn run(url: &str, which: Option<&Which>, json: bool) -> anyhow::Result<String> {
    let text = fetch(url, which.map(|which| which.service.as_str())).await?;
    let mut view = parse(&text)?;
    let instance = which.and_then(|which| Some((&which.service, which.instance.as_ref()?)));
    if let Some((service, wanted)) = instance {
        for list in view.services.values_mut() {
            list.retain(|known| known.info.id() == wanted || known.info.addr == *wanted);
        }
        if view.services.values().all(Vec::is_empty) {
            bail!("no instance of {service} is called {wanted:?} or was in the last minutes");
        }
    }
    Ok(match (json, which, instance) {
        (true, _, None) => text,
        (true, ..) => serde_json::to_string(&view)? + "\n",
        (false, None, _) => render(&view, Timestamp::now()),
        (false, Some(_), _) => render(&view, Timestamp::now()) + &histories(&view),
    })
}

/// Asks the registry at `url` for its catalogue, or for a part of it, as it sends it.
async fn fetch(url: &str, service: Option<&str>) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
    let below = service.map(|service| format!("/{service}")).unwrap_or_default();
    let url = format!("{}{SERVICES_PATH}{below}", url.trim_end_matches('/'));
    let reply = client.get(&url).send().await.with_context(|| format!("no registry answers at {url}"))?;
    let status = reply.status();
    let text = reply.text().await.with_context(|| format!("{url} broke off its answer"))?;
    if !status.is_success() {
        bail!("{url} answers {status}: {}", text::problem_detail(text.as_bytes()));
    }
    Ok(text)
}

/// Reads a catalogue as the registry sends it.
fn parse(text: &str) -> anyhow::Result<CatalogView> {
    serde_json::from_str(text).context("that is no catalogue; is the URL that of a Hubspoke registry?")
}

/// The catalogue as a table for people, and why some instances are not as they should be. `now` is the time that ages
/// are counted from.
fn render(view: &CatalogView, now: Timestamp) -> String {
    let instances: Vec<&InstanceView> = view.services.values().flatten().collect();
    if instances.is_empty() {
        return format!("no instance is registered (revision {})\n", view.revision);
    }
    let rows: Vec<Vec<String>> = instances.iter().map(|instance| row(instance, now)).collect();
    let header =
        ["SERVICE", "INSTANCE", "ADDRESS", "STATE", "UP", "HEARTBEAT", "REQUESTS", "IN FLIGHT", "REQUIRES"];
    let present = instances.iter().filter(|instance| instance.state != InstanceState::Removed).count();
    let text = table::layout(&header, &rows);
    let services = view.services.len();
    let mut text = format!(
        "{text}\n{} of {}, revision {}\n",
        count(present, "instance"),
        count(services, "service"),
        view.revision
    );
    for instance in instances.iter().filter(|instance| instance.state != InstanceState::Passing) {
        if let Some(reason) = instance.reasons.last() {
            let (what, detail) = why(reason);
            let ago = age(&reason.at, now);
            text += &one_line(&format!("{}: {what} {ago} ago{detail}", name(instance)), MAX);
            text.push('\n');
        }
    }
    if let Some(protection) = view.protection.as_ref().filter(|protection| protection.held_back > 0) {
        text += &admin::said(protection);
    }
    text
}

/// What has happened to each instance, the oldest first.
fn histories(view: &CatalogView) -> String {
    let mut text = String::new();
    for instance in view.services.values().flatten() {
        text += &format!("\n{} at {}\n", one_line(&name(instance), MAX), one_line(&instance.info.addr, MAX));
        for reason in &instance.reasons {
            let (what, detail) = why(reason);
            text += &format!("  {}\n", one_line(&format!("{} {what}{detail}", reason.at), MAX));
        }
    }
    text
}

fn name(instance: &InstanceView) -> String {
    format!("{}/{}", instance.info.name, instance.info.id())
}

/// What happened, in words, and the detail with its colon where there is one.
fn why(reason: &Reason) -> (&'static str, String) {
    let detail = if reason.detail.is_empty() { String::new() } else { format!(": {}", reason.detail) };
    (said(reason.kind).0, detail)
}

fn row(instance: &InstanceView, now: Timestamp) -> Vec<String> {
    let beat = instance.last_heartbeat.as_ref().map_or("-".to_owned(), |at| format!("{} ago", age(at, now)));
    let load = |pick: fn(&hubspoke_protocol::Load) -> u64| {
        instance.load.as_ref().map_or("-".to_owned(), |load| pick(load).to_string())
    };
    vec![
        one_line(&instance.info.name, MAX),
        one_line(instance.info.id(), MAX),
        one_line(&instance.info.addr, MAX),
        state(instance.state).to_owned(),
        age(&instance.registered, now),
        beat,
        load(|load| load.requests),
        load(|load| load.in_flight),
        one_line(&instance.info.required_services.join(","), MAX),
    ]
}

/// A state in a word.
pub(crate) fn state(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Passing => "passing",
        InstanceState::Suspect => "suspect",
        InstanceState::Draining => "draining",
        InstanceState::Removed => "removed",
    }
}

/// How long ago a time was, in the largest whole unit: `3s`, `12m`, `4h`, `2d`.
pub(crate) fn age(at: &str, now: Timestamp) -> String {
    let Ok(at) = at.parse::<Timestamp>() else { return "?".to_owned() };
    let seconds = now.as_second().saturating_sub(at.as_second()).max(0);
    match seconds {
        0..=59 => format!("{seconds}s"),
        60..=3599 => format!("{}m", seconds / 60),
        3600..=86_399 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_as_people_see_it() {
        let view = parse(
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

    /// A log instance that was removed, one that is suspect and calls itself something nasty, and one that drains.
    fn troubled() -> CatalogView {
        parse(
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
    fn why_an_instance_is_not_passing_is_said_below_the_table() {
        assert_eq!(
            render(&troubled(), "2026-11-23T08:10:00Z".parse().unwrap()),
            "\
SERVICE  INSTANCE  ADDRESS      STATE     UP   HEARTBEAT  REQUESTS  IN FLIGHT  REQUIRES
log      log-1     127.0.0.1:1  removed   10m  -          -         -
log      a [2J b   127.0.0.1:2  suspect   10m  -          -         -
log      log-3     127.0.0.1:3  draining  10m  -          -         -

2 instances of 1 service, revision 1f.30
log/log-1: removed 1m ago: 3 heartbeats missed
log/a [2J b: kept as suspect 2s ago: ]0;x others
log/log-3: draining 5m ago: by an operator
self-protection is on; the registry holds back the removal of 1 instance, until 2026-11-23T08:12:00Z at the latest
"
        );
    }

    #[test]
    fn the_history_of_each_instance_that_was_asked_for() {
        assert_eq!(
            histories(&troubled()),
            "
log/log-1 at 127.0.0.1:1
  2026-11-23T08:00:00.000Z registered
  2026-11-23T08:08:57.000Z missed a heartbeat: no answer in 1 s
  2026-11-23T08:09:00.000Z removed: 3 heartbeats missed

log/a [2J b at 127.0.0.1:2
  2026-11-23T08:09:58.000Z kept as suspect: ]0;x others

log/log-3 at 127.0.0.1:3
  2026-11-23T08:05:00.000Z draining: by an operator
"
        );
    }

    #[test]
    fn an_empty_catalogue_and_no_catalogue() {
        let view = parse(r#"{"Revision":"1.0","Services":{}}"#).unwrap();
        assert_eq!(render(&view, Timestamp::UNIX_EPOCH), "no instance is registered (revision 1.0)\n");
        assert!(parse("<html>").unwrap_err().to_string().contains("is the URL that of a Hubspoke registry?"));
    }
}
