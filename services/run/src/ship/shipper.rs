//! Lines into entries.

use std::time::Duration;

use hubspoke_client::log::{LogEntry, LogQueue, Pusher, QueueFull};
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use crate::output::{Colors, Grouper, Record, clean, recognize};

/// How long an entry waits for a line that belongs to it.
pub(crate) const MORE_LINES: Duration = Duration::from_millis(100);

/// Makes entries of lines.
#[derive(Debug)]
pub(crate) struct Shipper {
    grouper: Grouper,
    zone: TimeZone,
    /// Put into each entry.
    fields: Map<String, Value>,
}

impl Shipper {
    pub(crate) fn new(fields: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect();
        Self { grouper: Grouper::default(), zone: TimeZone::system(), fields }
    }

    /// Adds a line. Returns the entry before it, if that is complete.
    pub(crate) fn line(&mut self, line: &str) -> Option<LogEntry> {
        let text = self.grouper.push(&clean(line, Colors::Remove))?;
        Some(self.entry(text))
    }

    /// The entry that may still go on.
    pub(crate) fn finish(&mut self) -> Option<LogEntry> {
        let text = self.grouper.finish()?;
        Some(self.entry(text))
    }

    /// Whether an entry may still go on.
    pub(crate) fn is_pending(&self) -> bool {
        self.grouper.is_pending()
    }

    fn entry(&self, text: String) -> LogEntry {
        let Record { text, level, time, trace_id, mut fields } = recognize(text, &self.zone);
        fields.extend(self.fields.clone());
        LogEntry { text, level, fields, time: time.map(|time| time.to_string()), trace_id }
    }
}

/// Adds an entry to the queue; if it is full, the entry is lost, and counted there.
pub(crate) fn push(queue: &Pusher, entry: Option<LogEntry>) {
    if let Some(entry) = entry
        && let Err(QueueFull) = queue.push(entry)
    {
        tracing::debug!("an entry was lost");
    }
}

/// Adds an entry to the queue, when it has room.
pub(crate) async fn push_wait(queue: &LogQueue, entry: Option<LogEntry>) {
    if let Some(entry) = entry {
        queue.push_wait(entry).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_entries_without_colours_and_with_what_is_known_of_them() {
        let mut shipper = Shipper::new([("stream", "stderr".to_owned())]);
        assert_eq!(shipper.line("\u{1b}[31mERROR:app:it broke\u{1b}[0m"), None);
        assert_eq!(shipper.line("  in detail"), None);
        let entry = shipper.line(r#"{"msg":"next","stream":"own","n":1}"#).unwrap();
        assert_eq!((entry.text.as_str(), entry.level), ("ERROR:app:it broke\n  in detail", Some("error")));
        assert!(shipper.is_pending());
        let entry = shipper.finish().unwrap();
        assert_eq!(Value::from(entry.fields), serde_json::json!({ "stream": "stderr", "n": 1 }));
        assert_eq!(shipper.finish(), None);
    }
}
