//! stderr behind a bounded queue and a thread of its own. Whoever reads our stderr may be stuck, and then a write waits
//! for as long as he is: that must not be a thread that serves requests, or the registry's heartbeats stop with the
//! log reader of its container. Lines that find no room are lost and counted, and it is said once there is room again.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Lines that may wait: some 2 MiB.
const ROOM: usize = 8192;
/// How long an ending process waits for its last lines to be taken.
const FLUSH: Duration = Duration::from_secs(1);

thread_local! {
    /// What the writing thread says itself does not go through its own queue.
    static WRITES: Cell<bool> = const { Cell::new(false) };
}

/// The queue; a writer of whole lines. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    to: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Everything before is written: says so.
    Flush(SyncSender<()>),
}

impl Queue {
    /// Starts the thread that writes to stderr.
    ///
    /// # Errors
    /// Where there can be no more threads.
    pub(super) fn stderr() -> io::Result<Self> {
        let say = |lost| tracing::warn!(lost, "stderr was not read, or too slowly; lines were lost");
        Self::start(io::stderr(), ROOM, say)
    }

    fn start(
        mut out: impl Write + Send + 'static,
        room: usize,
        say: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (to, messages): (_, Receiver<Message>) = sync_channel(room);
        let lost = Arc::<AtomicU64>::default();
        let counted = lost.clone();
        std::thread::Builder::new().name("stderr".to_owned()).spawn(move || {
            WRITES.set(true);
            for message in messages {
                // Where stderr is closed there is nobody to tell.
                let _ = match &message {
                    Message::Line(line) => out.write_all(line),
                    Message::Flush(_) => out.flush(),
                };
                match counted.swap(0, Relaxed) {
                    0 => {}
                    lost => say(lost),
                }
                if let Message::Flush(done) = message {
                    let _ = done.try_send(());
                }
            }
        })?;
        Ok(Self { to, lost })
    }

    /// Waits until what was written so far is out, for at most a second.
    pub(super) fn flush(&self) {
        let (done, flushed) = sync_channel(1);
        // A queue that is full is a stderr that nobody reads.
        if self.to.try_send(Message::Flush(done)).is_ok() {
            let _ = flushed.recv_timeout(FLUSH);
        }
    }
}

impl Write for Queue {
    /// Takes one line, which is how `tracing` writes. Never waits.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if WRITES.get() {
            let _ = io::stderr().write_all(line);
        } else if self.to.try_send(Message::Line(line.to_vec())).is_err() {
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
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Writes one line for each permit.
    struct Slow {
        permits: Receiver<()>,
        lines: Sender<String>,
    }

    impl Write for Slow {
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
    fn a_reader_that_is_stuck_delays_nobody_and_what_got_lost_is_said_once() {
        let (permit, permits) = channel();
        let (lines, written) = channel();
        let said = Arc::<Mutex<Vec<u64>>>::default();
        let says = said.clone();
        let mut queue =
            Queue::start(Slow { permits, lines }, 3, move |lost| says.lock().unwrap().push(lost)).unwrap();
        for n in 0..10 {
            queue.write_all(format!("line {n}").as_bytes()).unwrap(); // does not hang
        }
        // Three wait; the thread may have taken a fourth.
        let lost = queue.lost.load(Relaxed);
        assert!((6..=7).contains(&lost), "{lost}");
        for _ in 0..10 {
            permit.send(()).unwrap();
        }
        for n in 0..10 - lost {
            assert_eq!(written.recv_timeout(Duration::from_secs(10)).unwrap(), format!("line {n}"));
        }
        while queue.to.try_send(Message::Line(b"last".to_vec())).is_err() {}
        assert_eq!(written.recv_timeout(Duration::from_secs(10)).unwrap(), "last");
        queue.flush();
        assert_eq!(*said.lock().unwrap(), [lost]);
    }

    #[test]
    fn flushing_waits_for_what_was_written() {
        let (permit, permits) = channel();
        let (lines, written) = channel();
        let mut queue = Queue::start(Slow { permits, lines }, 3, |_| {}).unwrap();
        queue.write_all(b"the end").unwrap();
        permit.send(()).unwrap();
        queue.flush();
        assert_eq!(written.try_recv().unwrap(), "the end");
    }
}
