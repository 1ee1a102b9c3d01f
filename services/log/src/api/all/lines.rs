//! Cuts what log instances send into lines.
//!
//! Any member can register as a log instance, so a sibling may send anything. Its lines are bounded, and those that
//! are not entries are skipped and counted.

use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::merge::EntryLines;
use crate::api::stream::FileStream;
use crate::entry::line::parse;

/// A sibling must continue its reply within this time; it may be searching a large file.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest line of a sibling, in bytes: six times the longest text, which escaping can make of it, and more.
const MAX_LINE: usize = 2 << 20;
/// A sibling that has sent this much that is not an entry is not a log instance. The rest of its reply is not read.
const MAX_SKIPPED: usize = 8 << 20;

pub(super) enum LineSource {
    Files(FileStream),
    Sibling { reply: reqwest::Response, addr: String },
}

/// The entries of one log instance.
pub(super) struct LineReader {
    source: LineSource,
    buf: Vec<u8>,
    /// How much of `buf` is consumed.
    at: usize,
    /// The rest of a line that is too long follows.
    skipping: bool,
    skipped: Skipped,
}

/// What was not an entry.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Skipped {
    lines: usize,
    bytes: usize,
}

impl LineReader {
    pub(super) fn new(source: LineSource) -> Self {
        Self { source, buf: Vec::new(), at: 0, skipping: false, skipped: Skipped::default() }
    }

    /// The next line in `buf`, if it is a whole one.
    fn take_line(&mut self) -> Option<std::ops::Range<usize>> {
        let end = self.at + memchr::memchr(b'\n', &self.buf[self.at..])?;
        let line = self.at..end;
        self.at = end + 1;
        Some(line)
    }

    /// Whether a line of a sibling is passed on.
    fn accept(&mut self, line: &[u8]) -> bool {
        let rest = std::mem::take(&mut self.skipping);
        if !rest && line.len() <= MAX_LINE && parse(line).is_some() {
            return true;
        }
        self.skipped.lines += usize::from(!rest);
        self.skipped.bytes += line.len() + 1;
        false
    }

    /// Makes room for the next chunk: drops what is consumed, and a line that is too long already.
    fn make_room(&mut self) {
        self.buf.drain(..self.at);
        self.at = 0;
        if self.buf.len() > MAX_LINE {
            self.skipped.lines += usize::from(!self.skipping);
            self.skipped.bytes += self.buf.len();
            self.skipping = true;
            self.buf.clear();
        }
    }

    /// The end of the reply. A line without its end is not an entry.
    fn end(&mut self) {
        let rest = self.buf.split_off(self.at);
        self.buf = Vec::new();
        self.at = 0;
        if !rest.is_empty() {
            self.accept(b"");
        }
        if let LineSource::Sibling { addr, .. } = &self.source
            && self.skipped.lines > 0
        {
            let Skipped { lines, bytes } = std::mem::take(&mut self.skipped);
            tracing::warn!(%addr, lines, bytes, "a log instance sent lines that are not entries; skipped them");
        }
    }
}

impl EntryLines for LineReader {
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            while let Some(line) = self.take_line() {
                let line = self.buf[line].to_vec();
                if matches!(self.source, LineSource::Files(_)) || self.accept(&line) {
                    return Ok(Some(line));
                }
            }
            self.make_room();
            let chunk = match &mut self.source {
                LineSource::Files(stream) => stream.next().await.transpose()?,
                LineSource::Sibling { .. } if self.skipped.bytes > MAX_SKIPPED => None,
                LineSource::Sibling { reply, .. } => timeout(CHUNK_TIMEOUT, reply.chunk())
                    .await?
                    .map_err(|error| io::Error::other(error.without_url()))?,
            };
            match chunk {
                Some(chunk) => self.buf.extend_from_slice(&chunk),
                None => {
                    self.end();
                    return Ok(None);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hubspoke_testkit::{RawConn, TestServer};

    use super::*;
    use crate::entry::tests::render_at;
    use crate::entry::{Batch, EntryMeta};

    fn entry(seq: u64) -> String {
        let batch = Batch::one(&EntryMeta::default(), b"x", None);
        String::from_utf8(render_at(&batch, jiff::Timestamp::UNIX_EPOCH, seq)).unwrap()
    }

    /// What is read of a sibling that sends `body`, `repeat` times, and closes the connection.
    async fn read(body: String, repeat: usize) -> (Vec<String>, Skipped, usize) {
        let server = TestServer::script(move |mut conn: RawConn| {
            let body = body.clone();
            async move {
                conn.request().await;
                conn.write("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_owned()).await;
                for _ in 0..repeat {
                    conn.write(body.clone()).await;
                }
            }
        })
        .await;
        let addr = server.addr.to_string();
        let reply = reqwest::Client::builder().no_proxy().build().unwrap();
        let reply = reply.get(format!("http://{addr}/log")).send().await.unwrap();
        let mut reader = LineReader::new(LineSource::Sibling { reply, addr });
        let (mut lines, mut skipped, mut most) = (Vec::new(), Skipped::default(), 0);
        while let Some(line) = reader.next().await.unwrap() {
            most = most.max(reader.buf.capacity());
            skipped = reader.skipped;
            lines.push(String::from_utf8(line).unwrap() + "\n");
        }
        (lines, skipped, most)
    }

    #[tokio::test]
    async fn lines_that_are_not_entries_are_skipped_and_counted() {
        let (one, two) = (entry(1), entry(2));
        let cut = &one[..one.len() - 9];
        let long = "x".repeat(3 << 20);
        let body = format!("{one}\n[]\n{{\"ts\":1}}\n{cut}\n{long}\n\u{1}\n{two}{cut}");
        let (lines, skipped, most) = read(body, 1).await;
        assert_eq!(lines, [one, two]);
        assert_eq!(skipped.lines, 6);
        assert!(most < 5 << 20, "{most}");
    }

    #[tokio::test]
    async fn a_sibling_that_is_not_a_log_instance_is_given_up() {
        let (lines, _, _) = read("x".repeat(1 << 20), 300).await;
        assert!(lines.is_empty());
        let (lines, _, _) = read("x\n".repeat(1 << 19), 300).await;
        assert!(lines.is_empty());
    }
}
