//! The arguments of `hub logs`, and the log service's query that they make. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::admin_client::server_url;

/// Entries shown with neither --since nor -n.
const LINES: u64 = 100;
/// The same with --follow.
const LINES_BEFORE_FOLLOWING: u64 = 10;

#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct LogsArgs {
    /// Keep printing new entries as they arrive
    #[arg(short, long, conflicts_with = "gateway")]
    pub(super) follow: bool,
    /// Print entries of the last DURATION, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Print the last N entries, 0 for none [default: 100; 10 with --follow; all with --since]
    #[arg(short = 'n', long, value_name = "N")]
    pub(super) lines: Option<u64>,
    /// Print entries whose text matches a regular expression
    #[arg(long, value_name = "REGEX")]
    grep: Option<String>,
    /// Print entries from one service
    #[arg(long, value_name = "SERVICE")]
    source: Option<String>,
    /// Print entries whose senders call themselves NAME, as programs do that are not members
    #[arg(long, value_name = "NAME")]
    claimed: Option<String>,
    /// Print entries of one trace
    #[arg(long, value_name = "ID")]
    trace: Option<String>,
    /// Print entries of at least this level: trace, debug, info, warn, error
    #[arg(long, value_name = "LEVEL")]
    level: Option<String>,
    /// Print all of each entry, however long or binary
    #[arg(long, conflicts_with = "json")]
    pub(super) full: bool,
    /// Print entries as they are stored, one JSON object per line
    #[arg(long)]
    pub(super) json: bool,
    /// Read through this gateway instead of finding log instances in the registry
    #[arg(long, value_name = "URL", value_parser = server_url)]
    pub(super) gateway: Option<String>,
}

impl LogsArgs {
    /// The parameters that filter entries, stored and new.
    pub(super) fn filters(&self) -> Vec<(&'static str, String)> {
        let all = [
            ("regex", &self.grep),
            ("source", &self.source),
            ("claimed", &self.claimed),
            ("trace_id", &self.trace),
            ("level", &self.level),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect()
    }

    /// The parameters for the stored entries.
    pub(super) fn history(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let mut query = self.filters();
        let default = if self.follow { LINES_BEFORE_FOLLOWING } else { LINES };
        match (self.since, self.lines) {
            (Some(ago), lines) => {
                let since = SignedDuration::try_from(ago).ok().and_then(|ago| now.checked_sub(ago).ok());
                query.push(("since", since.unwrap_or(Timestamp::MIN).to_string()));
                query.extend(lines.map(|lines| ("limit", lines.to_string())));
                if lines.is_none() {
                    query.extend([("order", "asc".to_owned()), ("limit", "0".to_owned())]);
                }
            }
            (None, lines) => query.push(("limit", lines.unwrap_or(default).to_string())),
        }
        query
    }
}

/// A query string.
pub(super) fn encode(pairs: Vec<(&'static str, String)>) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(args: LogsArgs) -> String {
        let now: Timestamp = "2026-11-23T08:10:00Z".parse().unwrap();
        let parts: Vec<_> =
            args.history(now).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        parts.join("&")
    }

    #[test]
    fn the_query_for_stored_entries() {
        let ten_minutes = Some(Duration::from_secs(600));
        assert_eq!(history(LogsArgs::default()), "limit=100");
        assert_eq!(history(LogsArgs { follow: true, ..LogsArgs::default() }), "limit=10");
        assert_eq!(history(LogsArgs { lines: Some(5), ..LogsArgs::default() }), "limit=5");
        assert_eq!(
            history(LogsArgs { since: ten_minutes, ..LogsArgs::default() }),
            "since=2026-11-23T08:00:00Z&order=asc&limit=0"
        );
        assert_eq!(
            history(LogsArgs { since: ten_minutes, lines: Some(3), ..LogsArgs::default() }),
            "since=2026-11-23T08:00:00Z&limit=3"
        );
        let args = LogsArgs {
            grep: Some("a.b".to_owned()),
            source: Some("visit".to_owned()),
            trace: Some("4bf9".to_owned()),
            level: Some("warn".to_owned()),
            ..LogsArgs::default()
        };
        assert_eq!(history(args), "regex=a.b&source=visit&trace_id=4bf9&level=warn&limit=100");
    }
}
