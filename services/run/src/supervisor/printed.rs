//! The output of an instance: to the terminal, to the log service, and the last lines for a report.

use std::collections::VecDeque;
use std::sync::Arc;

use hubspoke_client::log::Pusher;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::output::LineSplitter;
use crate::pattern::LinePattern;
use crate::ship::{MORE_LINES, Shipper, push};
use crate::terminal::{Prefix, Stream, Terminal};

/// Lines that are kept for a report.
const KEPT: usize = 20;
/// Longest part of a line that is kept, in characters.
const KEPT_LINE: usize = 300;
const CHUNK: usize = 16 << 10;

/// The last lines of an instance. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line.chars().take(KEPT_LINE).collect());
    }

    /// The lines, each indented.
    pub(super) fn show(&self) -> String {
        self.0.lock().iter().map(|line| format!("\n    {line}")).collect()
    }
}

/// The places to which the output of an instance goes.
#[derive(Clone)]
pub(super) struct Printed {
    pub(super) terminal: Terminal,
    pub(super) prefix: Prefix,
    pub(super) log: Option<Pusher>,
    pub(super) replica: u16,
    pub(super) last: LastLines,
    /// Set to true by a line that matches.
    pub(super) pattern: Option<LinePattern>,
    pub(super) matched: watch::Sender<bool>,
}

impl Printed {
    /// Reads a stream to its end.
    pub(super) async fn follow(self, stream: Stream, mut source: impl AsyncRead + Unpin) {
        let fields = [("stream", stream.name().to_owned()), ("replica", self.replica.to_string())];
        let (mut splitter, mut shipper) = (LineSplitter::default(), Shipper::new(fields));
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = source.read(&mut buffer);
            let read = if shipper.is_pending() {
                match timeout(MORE_LINES, read).await {
                    Ok(read) => read,
                    Err(_) => {
                        self.ship(shipper.finish());
                        continue;
                    }
                }
            } else {
                read.await
            };
            let Ok(read @ 1..) = read else { break };
            let mut lines = Vec::new();
            splitter.push(&buffer[..read], |line| lines.push(line));
            for line in lines {
                self.line(stream, &mut shipper, &line).await;
            }
        }
        if let Some(line) = splitter.finish() {
            self.line(stream, &mut shipper, &line).await;
        }
        self.ship(shipper.finish());
    }

    async fn line(&self, stream: Stream, shipper: &mut Shipper, line: &str) {
        if self.pattern.as_ref().is_some_and(|pattern| pattern.matches(line)) {
            self.matched.send_replace(true);
        }
        self.last.push(line);
        self.ship(shipper.line(line));
        self.terminal.line(stream, &self.prefix, line).await;
    }

    fn ship(&self, entry: Option<hubspoke_client::log::LogEntry>) {
        if let Some(log) = &self.log {
            push(log, entry);
        }
    }
}
