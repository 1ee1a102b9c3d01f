//! `hub ship`: standard input, or files that grow, become entries.

use std::future::Future;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hubspoke_client::HttpClientError;
use hubspoke_client::log::LogQueue;
use hubspoke_protocol::ServiceInfo;
use rand::RngExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::follow::Follower;
use super::shipper::{MORE_LINES, Shipper, push_wait};
use crate::output::LineSplitter;
use crate::platform::Platform;

/// How often files are looked at.
const POLL: Duration = Duration::from_millis(250);
/// How long the last entries may take at the end.
const FLUSH: Duration = Duration::from_secs(30);
const CHUNK: usize = 64 << 10;

/// The source of what is shipped.
#[derive(Debug)]
pub struct ShipConfig {
    /// The sender's name in the log.
    pub name: String,
    /// Files to follow; standard input if there are none.
    pub files: Vec<PathBuf>,
    /// Whether what the files contain already is shipped too.
    pub from_start: bool,
}

/// Why shipping ended.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// A file can't be read.
    #[error("can't read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The HTTP client can't be created.
    #[error(transparent)]
    Client(#[from] HttpClientError),
    /// Entries that no log instance took.
    #[error("{0} entries were lost: no log instance took them in time")]
    Lost(u64),
}

/// Ships until `stop` or the end of the input. If the log service takes nothing, the input waits.
///
/// # Errors
/// [`ShipError`].
pub async fn ship(
    config: ShipConfig,
    platform: &Platform,
    stop: impl Future<Output = ()>,
) -> Result<(), ShipError> {
    let id = format!("{}-{:016x}", config.name, rand::rng().random::<u64>());
    let sender = ServiceInfo { id: Some(id), ..ServiceInfo::new(config.name, "127.0.0.1:0") };
    let queue = std::sync::Arc::new(platform.log_queue(&sender)?);
    let mut readers = JoinSet::new();
    if config.files.is_empty() {
        let queue = queue.clone();
        readers.spawn(async move { stdin(&queue).await });
    }
    for path in config.files {
        let queue = queue.clone();
        readers.spawn(async move { file(&path, config.from_start, &queue).await });
    }
    let result = tokio::select! {
        () = stop => Ok(()),
        ended = readers.join_next() => match ended {
            Some(Ok(result)) => result,
            _ => Ok(()),
        },
    };
    let left = queue.flush(FLUSH).await as u64 + queue.lost();
    result?;
    if left > 0 { Err(ShipError::Lost(left)) } else { Ok(()) }
}

/// Standard input can't be read without blocking, so a thread does.
fn stdin_chunks() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, chunks) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = match io::stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => Ok(buffer[..read].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = read.is_err();
            if sender.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    chunks
}

async fn stdin(queue: &LogQueue) -> Result<(), ShipError> {
    let (mut source, mut chunks) = (Source::default(), stdin_chunks());
    loop {
        let chunk = if source.shipper.is_pending() {
            match timeout(MORE_LINES, chunks.recv()).await {
                Ok(chunk) => chunk,
                Err(_) => {
                    push_wait(queue, source.shipper.finish()).await;
                    continue;
                }
            }
        } else {
            chunks.recv().await
        };
        match chunk {
            Some(Ok(bytes)) => source.take(&bytes, queue).await,
            Some(Err(error)) => return Err(ShipError::Read("standard input".into(), error)),
            None => {
                source.finish(queue).await;
                return Ok(());
            }
        }
    }
}

async fn file(path: &Path, from_start: bool, queue: &LogQueue) -> Result<(), ShipError> {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut source = Source { shipper: Shipper::new([("file", file)]), ..Source::default() };
    let (mut follower, mut buffer) = (Follower::new(path, from_start), vec![0; CHUNK]);
    loop {
        match follower.read(&mut buffer).await.map_err(|error| ShipError::Read(path.to_owned(), error))? {
            0 => {
                push_wait(queue, source.shipper.finish()).await;
                sleep(POLL).await;
            }
            read => source.take(&buffer[..read], queue).await,
        }
    }
}

struct Source {
    splitter: LineSplitter,
    shipper: Shipper,
}

impl Default for Source {
    fn default() -> Self {
        Self { splitter: LineSplitter::default(), shipper: Shipper::new([]) }
    }
}

impl Source {
    async fn take(&mut self, bytes: &[u8], queue: &LogQueue) {
        let mut lines = Vec::new();
        self.splitter.push(bytes, |line| lines.push(line));
        for line in lines {
            push_wait(queue, self.shipper.line(&line)).await;
        }
    }

    async fn finish(&mut self, queue: &LogQueue) {
        if let Some(line) = self.splitter.finish() {
            push_wait(queue, self.shipper.line(&line)).await;
        }
        push_wait(queue, self.shipper.finish()).await;
    }
}
