//! `hub logs`: the entries of all log instances as one stream, by time; with `-f` also those to come.
//!
//! What is there already is merged by the log service itself (`GET /log/all`), so the gateway is enough to read it.
//! What comes is followed on each instance (`GET /log/tail`), as they come and go by the registry's word; an
//! instance that breaks off is followed again from its last entry.

use std::future::Future;
use std::io::IsTerminal;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use self::entry::Look;
use self::merge::Merge;
use crate::admin::Registry;

mod entry;
mod history;
mod merge;
mod tail;

/// Entries that are shown where neither --since nor -n says how many.
const LINES: u64 = 100;
/// The same with -f.
const LINES_BEFORE_FOLLOWING: u64 = 10;

/// Which entries, and how to show them.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// Go on with the entries to come
    #[arg(short, long, conflicts_with = "gateway")]
    follow: bool,
    /// Entries since a time ago
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// The last N entries, 0 for none; without --since 100, and with -f 10
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u64>,
    /// Entries whose text matches a regular expression
    #[arg(long, value_name = "REGEX")]
    grep: Option<String>,
    /// Entries of a service
    #[arg(long, value_name = "SERVICE")]
    source: Option<String>,
    /// Entries of a trace
    #[arg(long, value_name = "ID")]
    trace: Option<String>,
    /// Entries of a level (error, warn, info, debug, trace) or a graver one
    #[arg(long, value_name = "LEVEL")]
    level: Option<String>,
    /// Print the entries as they are stored, JSON lines
    #[arg(long)]
    json: bool,
    /// Read through this gateway instead of from the instances
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
}

impl Args {
    /// The parameters that say which entries are wanted, wherever they are read.
    fn filters(&self) -> Vec<(&'static str, String)> {
        let all = [
            ("regex", &self.grep),
            ("source", &self.source),
            ("trace_id", &self.trace),
            ("level", &self.level),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect()
    }

    /// The parameters for what is there already.
    fn past(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let mut query = self.filters();
        let few = if self.follow { LINES_BEFORE_FOLLOWING } else { LINES };
        match (self.since, self.lines) {
            (Some(ago), lines) => {
                let since = SignedDuration::try_from(ago).ok().and_then(|ago| now.checked_sub(ago).ok());
                query.push(("since", since.unwrap_or(Timestamp::MIN).to_string()));
                query.extend(lines.map(|lines| ("limit", lines.to_string())));
                if lines.is_none() {
                    query.extend([("order", "asc".to_owned()), ("limit", "0".to_owned())]);
                }
            }
            (None, lines) => query.push(("limit", lines.unwrap_or(few).to_string())),
        }
        query
    }
}

/// Prints the entries; with -f until `stop` is done.
///
/// # Errors
/// Where no log instance answers or it refuses the filters, and where stdout fails.
pub async fn run(args: Args, registry: &Registry, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let look = Look { json: args.json, terminal: std::io::stdout().is_terminal(), colour: colour() };
    let begun = Timestamp::now();
    let work = async {
        let seen = match args.lines {
            // The log service takes a limit of 0 for "all".
            Some(0) => Merge::default(),
            _ => history::show_all(&args, registry, look, begun).await?,
        };
        if args.follow { tail::follow(&args, registry, look, begun, seen).await } else { Ok(()) }
    };
    tokio::select! {
        done = work => done,
        () = stop => Ok(()),
    }
}

/// A query string.
fn encode(pairs: Vec<(&'static str, String)>) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// Whether instances are told apart by colours (<https://no-color.org>).
fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Says something that is no entry.
fn say(text: &str) {
    use std::io::Write;
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "hub: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(args: Args) -> String {
        let now: Timestamp = "2026-11-23T08:10:00Z".parse().unwrap();
        let parts: Vec<_> = args.past(now).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        parts.join("&")
    }

    #[test]
    fn what_is_asked_for() {
        let ten_minutes = Some(Duration::from_secs(600));
        assert_eq!(past(Args::default()), "limit=100");
        assert_eq!(past(Args { follow: true, ..Args::default() }), "limit=10");
        assert_eq!(past(Args { lines: Some(5), ..Args::default() }), "limit=5");
        assert_eq!(
            past(Args { since: ten_minutes, ..Args::default() }),
            "since=2026-11-23T08:00:00Z&order=asc&limit=0"
        );
        assert_eq!(
            past(Args { since: ten_minutes, lines: Some(3), ..Args::default() }),
            "since=2026-11-23T08:00:00Z&limit=3"
        );
        let args = Args {
            grep: Some("a.b".to_owned()),
            source: Some("visit".to_owned()),
            trace: Some("4bf9".to_owned()),
            level: Some("warn".to_owned()),
            ..Args::default()
        };
        assert_eq!(past(args), "regex=a.b&source=visit&trace_id=4bf9&level=warn&limit=100");
    }
}
