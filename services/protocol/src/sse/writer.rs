//! Writes server-sent events.

use std::fmt::Display;
use std::io::Write;

/// Appends one event to a buffer, field by field in the order of the calls. [`data`](Self::data) ends it.
///
/// ```
/// # use hubspoke_protocol::sse::EventWriter;
/// let mut out = Vec::new();
/// EventWriter::new(&mut out).name("change").id("1f.9").data(b"{}");
/// assert_eq!(out, b"event: change\nid: 1f.9\ndata: {}\n\n");
/// ```
#[derive(Debug)]
#[must_use = "an event without data is ignored by its reader"]
pub struct EventWriter<'a>(&'a mut Vec<u8>);

impl<'a> EventWriter<'a> {
    /// Begins an event at the end of `out`.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self(out)
    }

    /// Its type, without line ends. A reader takes `message` if there is none.
    pub fn name(self, name: &str) -> Self {
        self.field("event", name)
    }

    /// Its id, without line ends.
    pub fn id(self, id: impl Display) -> Self {
        self.field("id", id)
    }

    /// Its data, with a `data` field for each line of it, and the end of the event.
    pub fn data(self, data: &[u8]) {
        // Nearly all data is JSON on one line, and `contains` is much faster than a split.
        if data.contains(&b'\n') || data.contains(&b'\r') {
            let text = String::from_utf8_lossy(data).replace("\r\n", "\n");
            text.split(['\n', '\r']).for_each(|line| data_line(self.0, line.as_bytes()));
        } else {
            data_line(self.0, data);
        }
        self.0.push(b'\n');
    }

    fn field(self, field: &str, value: impl Display) -> Self {
        let _ = writeln!(self.0, "{field}: {value}"); // a Vec takes everything
        self
    }
}

fn data_line(out: &mut Vec<u8>, line: &[u8]) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(line);
    out.push(b'\n');
}

/// A comment, without line ends, as a block of its own. Readers ignore it; it keeps an idle stream alive.
pub fn comment(text: &str) -> String {
    if text.is_empty() { ":\n\n".to_owned() } else { format!(": {text}\n\n") }
}
