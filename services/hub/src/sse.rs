//! Server-sent events: reading them (pure), and following a stream that may break off.
//!
//! By the HTML standard, "9.2 Server-sent events", but for one thing: an event that is longer than [`MAX_EVENT`] is
//! an error, so that a server can't make us keep more.

pub(crate) use self::follow::why;
pub use self::follow::{Follow, Said};

mod follow;

/// Longest event, in bytes: a catalogue of ten thousand instances is some ten megabytes.
pub const MAX_EVENT: usize = 64 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its type; `message` where it gives none.
    pub name: String,
    /// The last id that the stream gave; empty where none has come.
    pub id: String,
    /// Its data lines, with a newline between two.
    pub data: String,
}

/// An event is longer than anybody may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {MAX_EVENT} bytes")]
pub struct TooLong;

/// Turns bytes, in whatever pieces they come, into events.
#[derive(Debug, Default)]
pub struct Parser {
    /// The line that has begun.
    line: Vec<u8>,
    /// A carriage return ended the line before, so a line feed belongs to it.
    after_cr: bool,
    /// The byte order mark may come only first.
    begun: bool,
    name: String,
    id: String,
    data: String,
    has_data: bool,
}

impl Parser {
    /// Reads on.
    ///
    /// # Errors
    /// [`TooLong`]; the stream is of no use then.
    pub fn feed(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) -> Result<(), TooLong> {
        loop {
            if self.after_cr && !bytes.is_empty() {
                self.after_cr = false;
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
            let end = bytes.iter().position(|&b| b == b'\n' || b == b'\r');
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + self.data.len() + piece.len() > MAX_EVENT {
                return Err(TooLong);
            }
            self.line.extend_from_slice(piece);
            let Some(end) = end else { return Ok(()) };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.end_line(&line, events);
        }
    }

    fn end_line(&mut self, line: &[u8], events: &mut Vec<Event>) {
        let line = if self.begun { line } else { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) };
        self.begun = true;
        if line.is_empty() {
            self.end_event(events);
            return;
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(value);
                self.has_data = true;
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            // A comment, `retry`, or what a later standard adds.
            _ => {}
        }
    }

    fn end_event(&mut self, events: &mut Vec<Event>) {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        if std::mem::take(&mut self.has_data) {
            let name = if name.is_empty() { "message".to_owned() } else { name };
            events.push(Event { name, id: self.id.clone(), data });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        Parser::default().feed(text, &mut events).unwrap();
        events
    }

    fn event(name: &str, id: &str, data: &str) -> Event {
        Event { name: name.to_owned(), id: id.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_by_the_standard() {
        assert_eq!(
            parse(b"data: a\n\ndata:b\ndata:  c\n\n"),
            [event("message", "", "a"), event("message", "", "b\n c")]
        );
        assert_eq!(
            parse(b"event: x\nid: 1.2\ndata: a\n\ndata: b\n\n"),
            [event("x", "1.2", "a"), event("message", "1.2", "b")]
        );
        assert_eq!(parse(b"\xef\xbb\xbf: hello\n\ndata\n\n"), [event("message", "", "")]);
        assert_eq!(parse(b"event: nothing\n\ndata: unfinished\n"), []);
        assert_eq!(parse(b"id: a\0b\nfoo: x\nretry: 3\ndata: a:b\n\n"), [event("message", "", "a:b")]);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        let mut fed = 0;
        let chunk = vec![b'x'; 1 << 20];
        while parser.feed(&chunk, &mut Vec::new()).is_ok() {
            fed += chunk.len();
            assert!(fed <= MAX_EVENT);
        }
        assert_eq!(fed, MAX_EVENT);
    }

    proptest! {
        #[test]
        fn pieces_and_line_ends_make_no_difference(
            list in prop::collection::vec(("[a-z]{1,4}", "[a-z0-9.]{1,4}", "[ -~é]{0,9}(\n[ -~é]{0,9}){0,2}"), 0..5),
            end in prop::sample::select(vec!["\n", "\r", "\r\n"]),
            cuts in prop::collection::vec(1_usize..9, 1..40),
        ) {
            let mut text = String::new();
            for (name, id, data) in &list {
                text += &format!("event: {name}{end}id: {id}{end}");
                for line in data.split('\n') {
                    text += &format!("data: {line}{end}");
                }
                text += end;
            }
            let mut parser = Parser::default();
            let mut events = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at(rest.len().min(*cut));
                parser.feed(piece, &mut events).unwrap();
                rest = after;
                if rest.is_empty() { break; }
            }
            let expected: Vec<_> = list.iter().map(|(name, id, data)| event(name, id, data)).collect();
            prop_assert_eq!(events, expected);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes);
        }
    }
}
