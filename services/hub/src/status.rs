//! `hub status`: the catalogue as a table, or as the registry's own JSON.

use std::time::Duration;

use anyhow::{Context, bail};
use hub_client::protocol::{CatalogView, InstanceState, InstanceView, SERVICES_PATH};

use crate::table;

/// How long the registry may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the registry at `url` for its catalogue, as it sends it.
///
/// # Errors
/// Where the registry can't be reached, or answers anything but its catalogue.
pub async fn fetch(url: &str) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
    let url = format!("{}{SERVICES_PATH}", url.trim_end_matches('/'));
    let reply = client.get(&url).send().await.with_context(|| format!("no registry answers at {url}"))?;
    let status = reply.status();
    let text = reply.text().await.with_context(|| format!("{url} broke off its answer"))?;
    if !status.is_success() {
        bail!("{url} answers {status}");
    }
    Ok(text)
}

/// Reads a catalogue as the registry sends it.
///
/// # Errors
/// Where it is none.
pub fn parse(text: &str) -> anyhow::Result<CatalogView> {
    serde_json::from_str(text).context("that is no catalogue; is the URL that of a Hubspoke registry?")
}

/// The catalogue as a table for people. `now` is the time that ages are counted from.
pub fn render(view: &CatalogView, now: jiff::Timestamp) -> String {
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
    format!(
        "{text}\n{} of {}, revision {}\n",
        count(present, "instance"),
        count(services, "service"),
        view.revision
    )
}

fn row(instance: &InstanceView, now: jiff::Timestamp) -> Vec<String> {
    let beat = instance.last_heartbeat.as_ref().map_or("-".to_owned(), |at| format!("{} ago", age(at, now)));
    let load = |pick: fn(&hub_client::protocol::Load) -> u64| {
        instance.load.as_ref().map_or("-".to_owned(), |load| pick(load).to_string())
    };
    vec![
        instance.info.name.clone(),
        instance.info.id().to_owned(),
        instance.info.addr.clone(),
        state(instance.state).to_owned(),
        age(&instance.registered, now),
        beat,
        load(|load| load.requests),
        load(|load| load.in_flight),
        instance.info.required_services.join(","),
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
pub(crate) fn age(at: &str, now: jiff::Timestamp) -> String {
    let Ok(at) = at.parse::<jiff::Timestamp>() else { return "?".to_owned() };
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

    #[test]
    fn an_empty_catalogue_and_no_catalogue() {
        let view = parse(r#"{"Revision":"1.0","Services":{}}"#).unwrap();
        assert_eq!(render(&view, jiff::Timestamp::UNIX_EPOCH), "no instance is registered (revision 1.0)\n");
        assert!(parse("<html>").unwrap_err().to_string().contains("is the URL that of a Hubspoke registry?"));
    }
}
