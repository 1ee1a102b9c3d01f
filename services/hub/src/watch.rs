//! `hub watch`: the catalogue as it changes, as a live screen, a line per change, or JSON lines for scripts.
//!
//! The screen is lively without frequent heartbeats: the registry spreads those of all instances over the
//! interval and publishes them every second, so some rows change each second. Every rate is exact: the
//! requests between two heartbeats of an instance, divided by the time between them. Nothing is extrapolated.

use std::future::Future;
use std::io::IsTerminal;

use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use crate::admin_client::AdminClient;
use crate::catalog_update::CatalogUpdate;
use crate::event_source::StreamUpdate;
use crate::outage::OutageReporter;
use crate::output::print;

mod bar;
mod control;
mod model;
mod plain;
mod samples;
mod screen;
mod terminal;

#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct WatchArgs {
    /// Print the catalogue and exit
    #[arg(long)]
    once: bool,
    /// Print JSON: one line per event, or the catalogue with --once
    #[arg(long)]
    json: bool,
}

/// Watches until `stop` is done or, on a terminal, `q` is pressed.
///
/// # Errors
/// With --once, if the registry can't be reached; without, only if the terminal or stdout fails.
pub(crate) async fn run(
    args: WatchArgs,
    registry: &AdminClient,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    match (args.once, args.json) {
        (true, json) => {
            let view = registry.catalog().await?;
            print(&if json {
                serde_json::to_string(&view)? + "\n"
            } else {
                plain::table(&view, Timestamp::now())
            })
        }
        (false, false) if std::io::stdout().is_terminal() => terminal::run(registry, stop).await,
        (false, json) => print_updates(registry, json, stop).await,
    }
}

async fn print_updates(
    registry: &AdminClient,
    json: bool,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut stream = registry.watch(None);
    let mut stop = std::pin::pin!(stop);
    let mut outages = OutageReporter::default();
    let clock = Instant::now();
    loop {
        let due = outages.next_at();
        tokio::select! {
            update = stream.next() => match update? {
                StreamUpdate::Connected => outages.back(registry.url(), clock.elapsed()),
                StreamUpdate::Event(event) if json => print(&plain::json(&event)?)?,
                StreamUpdate::Event(event) => {
                    if let Some(update) = CatalogUpdate::parse(&event)? {
                        print(&plain::lines(&update, Timestamp::now()))?;
                    }
                }
                StreamUpdate::Disconnected { reason } => {
                    outages.lost(registry.url(), reason, clock.elapsed());
                }
            },
            () = &mut stop => return Ok(()),
            () = sleep_until(clock + due.unwrap_or_default()), if due.is_some() => {}
        }
        if let Some(report) = outages.report(clock.elapsed()) {
            print(&if json {
                plain::json_outage(&report)?
            } else {
                plain::outage(&report, Timestamp::now())
            })?;
        }
    }
}
