use std::error::Error;
use std::io;
use std::time::Duration;

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
