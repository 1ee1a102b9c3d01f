//! How `hub stop` reaches the `hub run` and `hub up` processes of this user: a socket in the abstract namespace of
//! Linux, so nothing is left behind in any folder. One line is asked and one is answered.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Longest line.
const MAX_LINE: u64 = 256;
/// How long a question may take to arrive.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a program may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const STOPPED: &str = "stopped\n";

/// How each program of this process is stopped, and when it has ended. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stops(Arc<Mutex<HashMap<String, (CancellationToken, CancellationToken)>>>);

impl Stops {
    pub(crate) fn add(&self, name: &str, stop: CancellationToken, ended: CancellationToken) {
        self.0.lock().insert(name.to_owned(), (stop, ended));
    }
}

/// Listens until it is dropped.
pub(crate) struct Control {
    _listener: AbortOnDropHandle<()>,
}

impl Control {
    /// `None` if this machine has no such sockets; `hub stop` does not work then.
    pub(crate) fn listen(stops: Stops) -> Option<Self> {
        let listener = match bind(std::process::id()) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "hub stop can't reach this process"
                );
                return None;
            }
        };
        let own = rustix::process::geteuid().as_raw();
        let task = tokio::spawn(async move {
            // One question at a time, and only from this user and root.
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_secs(1)).await; // out of file descriptors
                    continue;
                };
                let allowed = stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0);
                if allowed {
                    let stops = stops.clone();
                    tokio::spawn(async move { drop(answer(stream, &stops).await) });
                }
            }
        });
        Some(Self { _listener: AbortOnDropHandle::new(task) })
    }
}

async fn answer(stream: UnixStream, stops: &Stops) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    timeout(READ_TIMEOUT, BufReader::new(read.take(MAX_LINE)).read_line(&mut line)).await??;
    let program = line.trim().strip_prefix("stop ").and_then(|name| stops.0.lock().get(name).cloned());
    let Some((stop, ended)) = program else { return write.write_all(b"no such program\n").await };
    stop.cancel();
    ended.cancelled().await;
    write.write_all(STOPPED.as_bytes()).await
}

/// Asks the process `pid` to stop a program, and waits until it has.
///
/// # Errors
/// If it can't be reached, does not run the program, or takes longer than a minute.
pub async fn stop(pid: u32, name: &str) -> io::Result<()> {
    let mut stream = connect(pid)?;
    stream.write_all(format!("stop {name}\n").as_bytes()).await?;
    let mut answer = String::new();
    timeout(STOP_TIMEOUT, stream.take(MAX_LINE).read_to_string(&mut answer)).await??;
    // If that was its last program, the process may end before it has answered.
    if answer == STOPPED || answer.is_empty() {
        Ok(())
    } else {
        Err(io::Error::other(answer.trim().to_owned()))
    }
}

#[cfg(target_os = "linux")]
fn address(pid: u32) -> io::Result<std::os::unix::net::SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    std::os::unix::net::SocketAddr::from_abstract_name(format!("hubspoke-run-{pid}"))
}

#[cfg(target_os = "linux")]
fn bind(pid: u32) -> io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::bind_addr(&address(pid)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

#[cfg(target_os = "linux")]
fn connect(pid: u32) -> io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::connect_addr(&address(pid)?)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

#[cfg(not(target_os = "linux"))]
fn bind(_: u32) -> io::Result<UnixListener> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn connect(_: u32) -> io::Result<UnixStream> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_is_stopped_by_its_name() {
        let stops = Stops::default();
        let (asked, ended) = (CancellationToken::new(), CancellationToken::new());
        stops.add("web", asked.clone(), ended.clone());
        let _control = Control::listen(stops).unwrap();
        let pid = std::process::id();
        assert_eq!(stop(pid, "shop").await.unwrap_err().to_string(), "no such program");
        let stopping = tokio::spawn(async move { stop(pid, "web").await });
        asked.cancelled().await;
        assert!(!stopping.is_finished());
        ended.cancel();
        stopping.await.unwrap().unwrap();
    }
}
