use std::error::Error;
use std::fs::File;
use std::io;
use std::time::Duration;

use rustix::io::Errno;

/// Pause after a failed accept. The usual cause is a lack of file descriptors; connections that end free some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Logs a failed `accept` and pauses, so that the accept loop does not spin. A connection that its client gave up is
/// not a failure.
pub async fn pause_after_accept_error(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(error = error as &dyn Error, "can't accept connections");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// A file descriptor that is kept for one more connection: if the process has run out of them, whatever holds them,
/// the port can still accept a health check.
#[derive(Debug)]
pub(super) struct SpareFile(Option<File>);

impl Default for SpareFile {
    fn default() -> Self {
        Self(File::open("/dev/null").ok())
    }
}

impl SpareFile {
    /// Closes the spare descriptor if `error` is the lack of one. Returns false for another error, or if it is closed
    /// already.
    pub(super) fn release(&mut self, error: &io::Error) -> bool {
        let lacks_files = matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE));
        lacks_files && self.0.take().is_some()
    }

    /// Opens the spare descriptor again. Returns false if the process still has no descriptor.
    pub(super) fn refill(&mut self) -> bool {
        if self.0.is_none() {
            self.0 = File::open("/dev/null").ok();
        }
        self.0.is_some()
    }
}
