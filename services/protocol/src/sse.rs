//! Server-sent events (`text/event-stream`), as in section 9.2 of the HTML standard: reading and writing.
//!
//! A [`Splitter`] cuts a stream into blocks (the lines up to an empty one) of bounded length, to forward as they
//! are. A [`Parser`] reads the blocks as [`Event`]s. `retry` is ignored: our readers have their own backoffs.

pub use self::splitter::{BlockTooLong, Splitter};
pub use self::writer::{EventWriter, comment};

mod splitter;
mod writer;

/// The media type.
pub const CONTENT_TYPE: &str = "text/event-stream";
/// The request header that tells the server which event the client saw last.
pub const LAST_EVENT_ID: &str = "last-event-id";

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its type; `message` if the stream gives none.
    pub name: String,
    /// The last id in the stream so far; empty before the first.
    pub id: String,
    /// Its `data` lines, joined by newlines.
    pub data: String,
}

/// Turns bytes, cut anywhere, into events.
///
/// ```
/// # use hubspoke_protocol::sse::Parser;
/// let mut parser = Parser::new(1 << 20);
/// let mut events = Vec::new();
/// parser.feed(b"event: load\nid: 7\nda", &mut events)?;
/// parser.feed(b"ta: {}\n\n", &mut events)?;
/// assert_eq!((events[0].name.as_str(), events[0].id.as_str(), events[0].data.as_str()), ("load", "7", "{}"));
/// # Ok::<(), hubspoke_protocol::sse::BlockTooLong>(())
/// ```
#[derive(Debug)]
pub struct Parser {
    blocks: Splitter,
    id: String,
    started: bool,
}

impl Parser {
    /// Accepts blocks of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { blocks: Splitter::new(limit), id: String::new(), started: false }
    }

    /// Takes the next bytes of the stream and appends the events that they complete.
    ///
    /// # Errors
    /// [`BlockTooLong`]. The parser can go on: it skips the rest of that block.
    pub fn feed(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), BlockTooLong> {
        self.blocks.push(bytes);
        while let Some(block) = self.blocks.next_block() {
            let mut block = block?;
            if !std::mem::replace(&mut self.started, true) {
                block = block.strip_prefix(BYTE_ORDER_MARK).unwrap_or(block);
            }
            let (mut name, mut data) = (String::new(), None::<String>);
            for (field, value) in fields(block) {
                let value = String::from_utf8_lossy(value);
                match field {
                    b"event" => name = value.into_owned(),
                    b"data" => match &mut data {
                        Some(data) => data.extend(["\n", &value]),
                        None => data = Some(value.into_owned()),
                    },
                    b"id" if !value.contains('\0') => self.id = value.into_owned(),
                    _ => {}
                }
            }
            if let Some(data) = data {
                let name = if name.is_empty() { "message".to_owned() } else { name };
                events.push(Event { name, id: self.id.clone(), data });
            }
        }
        Ok(())
    }
}

/// The fields of a block, in order: name and value. A comment has an empty name.
pub fn fields(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = block.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty());
    lines.map(|line| {
        let colon = line.iter().position(|&byte| byte == b':');
        let value = colon.map_or(&b""[..], |at| &line[at + 1..]);
        (&line[..colon.unwrap_or(line.len())], value.strip_prefix(b" ").unwrap_or(value))
    })
}
