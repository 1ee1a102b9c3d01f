//! `hub logs`: the entries of all log instances as one stream in order of time, with `--follow` also new ones.
//!
//! Stored entries are merged by the log service itself (`GET /log/all`), so a gateway is enough to read them.
//! New ones come from a stream per instance (`GET /log/tail`), for the instances that are in the catalogue; a
//! stream that breaks off resumes after its last entry.

use std::future::Future;
use std::io::IsTerminal;

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub(crate) use self::args::LogsArgs;
use self::render::EntryFormat;
use self::reorder::ReorderBuffer;
use crate::admin_client::AdminClient;
use crate::output::remark;

mod args;
mod entry;
mod history;
mod render;
mod reorder;
#[cfg(test)]
mod stores;
mod tail;

/// Prints the entries, with --follow until `stop` is done.
///
/// # Errors
/// If no log instance answers, the filters are invalid, or stdout fails.
pub(crate) async fn run(
    args: LogsArgs,
    registry: &AdminClient,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let terminal = std::io::stdout().is_terminal();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()); // https://no-color.org
    let started = Timestamp::now();
    let zone = (terminal && !args.json).then(TimeZone::system);
    if let Some(zone) = &zone {
        remark(&format!("times are {}", zone_name(zone, started)));
    }
    let format = &EntryFormat { json: args.json, full: args.full, zone, color: terminal && !no_color };
    let work = async {
        let printed = match args.lines {
            // The log service takes a limit of 0 for "all".
            Some(0) => ReorderBuffer::default(),
            _ => history::print_all(&args, registry, format, started).await?,
        };
        if args.follow { tail::follow(&args, registry, format, started, printed).await } else { Ok(()) }
    };
    tokio::select! {
        done = work => done,
        () = stop => Ok(()),
    }
}

/// `UTC`, or the name of the zone and its offset now: `Europe/Berlin (CET, UTC+01:00)`.
fn zone_name(zone: &TimeZone, now: Timestamp) -> String {
    let info = zone.to_offset_info(now);
    if info.offset().is_zero() && info.abbreviation() == "UTC" {
        return "UTC".to_owned();
    }
    let offset = format!("UTC{}", now.to_zoned(zone.clone()).strftime("%:z"));
    match zone.iana_name() {
        Some(name) => format!("{name} ({}, {offset})", info.abbreviation()),
        None => offset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_is_named() {
        let now = "2026-11-26T12:00:00Z".parse().unwrap();
        assert_eq!(zone_name(&TimeZone::UTC, now), "UTC");
        assert_eq!(zone_name(&TimeZone::fixed(jiff::tz::offset(-3)), now), "UTC-03:00");
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!(zone_name(&berlin, now), "UTC+01:00");
    }
}
