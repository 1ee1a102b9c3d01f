//! Cuts what log instances send into lines.
//!
//! Any member can register as a log instance, so a sibling may send anything. Its lines are bounded, and those that
//! are not entries are skipped and counted.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::merge::EntryLines;
use crate::api::stream::FileStream;
use crate::entry::line::parse;
use crate::error::ApiError;

/// A sibling must continue its reply within this time; it may be searching a large file.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest line of a sibling, in bytes: six times the longest text, which escaping can make of it, and more.
const MAX_LINE: usize = 2 << 20;
/// Memory of a sibling in a merge, in bytes: what its connection has read, and the lines that are not long.
pub(super) const SIBLING_MEMORY: usize = 512 << 10;
/// A line that is longer than half of this takes from the memory of all readers.
const SHORT_LINE: usize = 64 << 10;
/// A sibling that has sent this much that is not an entry is not a log instance. The rest of its reply is not read.
const MAX_SKIPPED: usize = 8 << 20;

pub(super) enum LineSource {
    Files(FileStream),
    Sibling {
        reply: reqwest::Response,
        addr: String,
        /// That of all readers, for long lines.
        memory: Arc<Semaphore>,
    },
}

/// The entries of one log instance.
pub(super) struct LineReader {
    source: LineSource,
    /// What has come and is not consumed.
    chunk: Bytes,
    /// The beginning of a line whose end is not in `chunk`.
    begun: Vec<u8>,
    /// For `begun`, and for the line that the merge holds.
    memory: Option<OwnedSemaphorePermit>,
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
        Self {
            source,
            chunk: Bytes::new(),
            begun: Vec::new(),
            memory: None,
            skipping: false,
            skipped: Skipped::default(),
        }
    }

    /// The next line, if its end has come.
    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = memchr::memchr(b'\n', &self.chunk)?;
        let line = self.chunk.split_to(end + 1);
        let mut whole = std::mem::take(&mut self.begun);
        whole.extend_from_slice(&line[..end]);
        Some(whole)
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

    /// Makes room for the next chunk: keeps the beginning of a line, unless it is too long already.
    fn make_room(&mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.chunk);
        if self.begun.is_empty() {
            self.memory = None;
        }
        let len = self.begun.len() + rest.len();
        if len > MAX_LINE {
            self.skipped.lines += usize::from(!self.skipping);
            self.skipped.bytes += len;
            self.skipping = true;
            self.begun = Vec::new();
            return Ok(());
        }
        if let LineSource::Sibling { memory, .. } = &self.source {
            // Twice: the merge holds a line while this reads the next one.
            let held = self.memory.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let more = (2 * len).saturating_sub(SHORT_LINE).saturating_sub(held);
            if more > 0 {
                let more = Arc::clone(memory).try_acquire_many_owned(u32::try_from(more).unwrap_or(u32::MAX));
                let more = more.map_err(|_| io::Error::other(ApiError::Busy))?;
                match &mut self.memory {
                    Some(held) => held.merge(more),
                    None => self.memory = Some(more),
                }
            }
        }
        self.begun.reserve_exact(rest.len());
        self.begun.extend_from_slice(&rest);
        Ok(())
    }

    /// The end of the reply. A line without its end is not an entry.
    fn end(&mut self) {
        if !std::mem::take(&mut self.begun).is_empty() {
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
                if matches!(self.source, LineSource::Files(_)) || self.accept(&line) {
                    return Ok(Some(line));
                }
            }
            self.make_room()?;
            let chunk = match &mut self.source {
                LineSource::Files(stream) => stream.next().await.transpose()?,
                LineSource::Sibling { .. } if self.skipped.bytes > MAX_SKIPPED => None,
                LineSource::Sibling { reply, .. } => timeout(CHUNK_TIMEOUT, reply.chunk())
                    .await?
                    .map_err(|error| io::Error::other(error.without_url()))?,
            };
            match chunk {
                Some(chunk) => self.chunk = chunk,
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
        let memory = Arc::new(Semaphore::new(8 << 20));
        let reply = reqwest::Client::builder().no_proxy().build().unwrap();
        let reply = reply.get(format!("http://{addr}/log")).send().await.unwrap();
        let mut reader = LineReader::new(LineSource::Sibling { reply, addr, memory });
        let (mut lines, mut skipped, mut most) = (Vec::new(), Skipped::default(), 0);
        while let Some(line) = reader.next().await.unwrap() {
            most = most.max(reader.begun.capacity());
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
