//! Writes to stderr from a separate thread, behind a bounded queue. If the reader of stderr is stuck, so is every
//! write. That must not block a thread that serves requests, or the registry's heartbeats would stop with the log reader
//! of its container. Lines that do not fit are lost and counted, and the count is logged when lines fit again.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Lines that may be queued: about 2 MiB.
const CAPACITY: usize = 8192;
/// How long a process that ends waits for its last lines to be read.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

thread_local! {
    /// Lines of the writing thread itself bypass its queue.
    static IS_WRITER: Cell<bool> = const { Cell::new(false) };
}

/// The queue, as a writer of whole lines. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct StderrQueue {
    sender: SyncSender<QueueMessage>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum QueueMessage {
    Line(Vec<u8>),
    /// Answered when all lines before it are written.
    Flush(SyncSender<()>),
}

impl StderrQueue {
    /// Starts the thread that writes to stderr.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub(super) fn stderr() -> io::Result<Self> {
        let log = |lost| tracing::warn!(lost, "log lines were lost: stderr was read too slowly");
        Self::start(io::stderr(), CAPACITY, log)
    }

    fn start(
        mut out: impl Write + Send + 'static,
        capacity: usize,
        log_lost: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, messages): (_, Receiver<QueueMessage>) = sync_channel(capacity);
        let lost = Arc::<AtomicU64>::default();
        let counted = lost.clone();
        std::thread::Builder::new().name("stderr".to_owned()).spawn(move || {
            IS_WRITER.set(true);
            for message in messages {
                // Fails if stderr is closed.
                let _ = match &message {
                    QueueMessage::Line(line) => out.write_all(line),
                    QueueMessage::Flush(_) => out.flush(),
                };
                match counted.swap(0, Relaxed) {
                    0 => {}
                    lost => log_lost(lost),
                }
                if let QueueMessage::Flush(done) = message {
                    let _ = done.try_send(());
                }
            }
        })?;
        Ok(Self { sender, lost })
    }

    /// Waits until the lines so far are written, for at most a second.
    pub(super) fn flush(&self) {
        let (done, flushed) = sync_channel(1);
        // If the queue is full, nobody reads stderr.
        if self.sender.try_send(QueueMessage::Flush(done)).is_ok() {
            let _ = flushed.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

impl Write for StderrQueue {
    /// Queues one line: `tracing` writes whole lines. Never blocks.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if IS_WRITER.get() {
            let _ = io::stderr().write_all(line);
        } else if self.sender.try_send(QueueMessage::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use parking_lot::Mutex;

    use super::*;

    /// Writes one line per permit.
    struct SlowWriter {
        permits: Receiver<()>,
        lines: Sender<String>,
    }

    impl Write for SlowWriter {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.permits.recv();
            let _ = self.lines.send(String::from_utf8(line.to_vec()).unwrap());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_blocks_nobody_and_lost_lines_are_logged_once() {
        let (permit, permits) = channel();
        let (lines, written) = channel();
        let logged = Arc::<Mutex<Vec<u64>>>::default();
        let log = logged.clone();
        let mut queue =
            StderrQueue::start(SlowWriter { permits, lines }, 3, move |lost| log.lock().push(lost)).unwrap();
        for n in 0..10 {
            queue.write_all(format!("line {n}").as_bytes()).unwrap(); // does not block
        }
        // Three are queued; the thread may have taken a fourth.
        let lost = queue.lost.load(Relaxed);
        assert!((6..=7).contains(&lost), "{lost}");
        for _ in 0..10 {
            permit.send(()).unwrap();
        }
        for n in 0..10 - lost {
            assert_eq!(written.recv_timeout(Duration::from_secs(10)).unwrap(), format!("line {n}"));
        }
        while queue.sender.try_send(QueueMessage::Line(b"last".to_vec())).is_err() {}
        assert_eq!(written.recv_timeout(Duration::from_secs(10)).unwrap(), "last");
        queue.flush();
        assert_eq!(*logged.lock(), [lost]);
    }

    #[test]
    fn flush_waits_for_the_lines_so_far() {
        let (permit, permits) = channel();
        let (lines, written) = channel();
        let mut queue = StderrQueue::start(SlowWriter { permits, lines }, 3, |_| {}).unwrap();
        queue.write_all(b"the end").unwrap();
        permit.send(()).unwrap();
        queue.flush();
        assert_eq!(written.try_recv().unwrap(), "the end");
    }
}
