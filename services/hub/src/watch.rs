//! `hub watch`: the catalogue as it changes. A live screen on a terminal, a line per change elsewhere, JSON lines for
//! scripts.
//!
//! It is lively without quicker heartbeats: the registry spreads those of all instances over their interval and
//! sends what they said every second, each with its time, so each second some rows move, and every rate is exact:
//! requests between two heartbeats of one instance over the time between them. Nothing is extrapolated.

use std::future::Future;
use std::io::IsTerminal;

use jiff::Timestamp;

use crate::admin::Registry;
use crate::event_source::StreamUpdate;
use crate::print;

mod bar;
mod control;
pub(crate) mod feed;
mod model;
mod plain;
mod samples;
mod screen;
mod terminal;

pub(crate) use self::model::said;

/// What to show, and how.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Args {
    /// Print the catalogue as it is, and exit
    #[arg(long)]
    once: bool,
    /// Print JSON: each event on a line of its own, or with --once the catalogue
    #[arg(long)]
    json: bool,
}

/// Watches until `stop` is done or, on a terminal, `q` is pressed.
///
/// # Errors
/// With --once where the registry can't be reached; else where the terminal or stdout fails.
pub async fn run(args: Args, registry: &Registry, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
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
        (false, json) => lines(registry, json, stop).await,
    }
}

async fn lines(registry: &Registry, json: bool, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let mut follow = registry.watch(None);
    let mut stop = std::pin::pin!(stop);
    let mut away = false;
    loop {
        let said = tokio::select! {
            said = follow.next() => said?,
            () = &mut stop => return Ok(()),
        };
        let now = Timestamp::now();
        match said {
            StreamUpdate::Connected => away = false,
            StreamUpdate::Event(event) if json => print(&plain::json(&event)?)?,
            StreamUpdate::Event(event) => {
                if let Some(update) = feed::read(&event)? {
                    print(&plain::lines(&update, now))?;
                }
            }
            // Said once for each time that it goes away, not for each attempt.
            StreamUpdate::Disconnected { .. } if away => {}
            StreamUpdate::Disconnected { reason: why } => {
                away = true;
                let why = format!("{} is away: {why}", registry.url());
                print(&if json { plain::json_away(&why)? } else { plain::line(now, "registry", &why) })?;
            }
        }
    }
}
