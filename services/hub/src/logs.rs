//! `hub logs`: the entries of all log instances as one stream in order of time, with `--follow` also new ones.
//!
//! Stored entries are merged by the log service itself (`GET /log/all`), so a gateway is enough to read them.
//! New ones come from a stream per instance (`GET /log/tail`), for the instances that are in the catalogue; a
//! stream that breaks off resumes after its last entry.

use std::future::Future;
use std::io::IsTerminal;

use jiff::Timestamp;

pub(crate) use self::args::LogsArgs;
use self::entry::EntryFormat;
use self::reorder::ReorderBuffer;
use crate::admin_client::AdminClient;

mod args;
mod entry;
mod history;
mod reorder;
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
    let format = EntryFormat { json: args.json, short_time: terminal, color: terminal && !no_color };
    let started = Timestamp::now();
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
