//! A `hub` process that runs programs.

use std::process::Stdio;
use std::sync::Arc;

use hubspoke_protocol::{InstanceView, Reason};
use hubspoke_testkit::process::Exit;
use hubspoke_testkit::{eventually, process};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::program::{processes, with_program};
use crate::platform::TestPlatform;

/// A `hub run`, or another command that goes on. Killed when dropped.
pub(super) struct Running {
    pub(super) child: Child,
    mark: String,
    lines: Arc<Mutex<String>>,
    readers: JoinSet<()>,
}

impl Running {
    /// `hub run ARGS -- program`.
    pub(super) fn start(platform: &TestPlatform, args: &[&str], behaviour: &str) -> Self {
        let mark = format!("{:032x}", rand::random::<u128>());
        let mut command = platform.command(&["run"]);
        command.args(args);
        with_program(&mut command, behaviour, &mark);
        Self::spawn(command, mark)
    }

    pub(super) fn spawn(mut command: Command, mark: String) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(String::new()));
        let mut readers = JoinSet::new();
        readers.spawn(read(child.stdout.take().unwrap(), lines.clone()));
        readers.spawn(read(child.stderr.take().unwrap(), lines.clone()));
        Self { child, mark, lines, readers }
    }

    /// Its output so far, on both streams.
    pub(super) fn printed(&self) -> String {
        self.lines.lock().clone()
    }

    pub(super) async fn prints(&self, text: &str) {
        let what = format!("prints {text:?}");
        eventually(&what, async || self.printed().contains(text)).await;
    }

    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    pub(super) fn processes(&self) -> Vec<u32> {
        processes(&self.mark)
    }

    pub(super) async fn signal(&self, name: &str) {
        process::signal(&self.child, name).await;
    }

    /// Waits for its end. Returns its exit code and all that it printed.
    pub(super) async fn end(mut self) -> Exit {
        let status = tokio::time::timeout(hubspoke_testkit::DEADLINE, self.child.wait());
        let status = status.await.unwrap_or_else(|_| panic!("it does not end: {}", self.printed())).unwrap();
        while self.readers.join_next().await.is_some() {}
        Exit { code: status.code(), stdout: self.printed(), stderr: String::new() }
    }
}

/// A failed test leaves nothing behind either.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
    }
}

async fn read(source: impl AsyncRead + Unpin, lines: Arc<Mutex<String>>) {
    let mut source = BufReader::new(source).lines();
    while let Ok(Some(line)) = source.next_line().await {
        *lines.lock() += &(line + "\n");
    }
}

/// The instances of a service that are not removed.
pub(super) async fn instances(platform: &TestPlatform, service: &str) -> Vec<InstanceView> {
    let mut catalog = platform.catalog().await;
    let mut instances = catalog.services.remove(service).unwrap_or_default();
    instances.retain(|instance| instance.state != hubspoke_protocol::InstanceState::Removed);
    instances
}

/// Waits until a service has `count` instances.
pub(super) async fn has_instances(platform: &TestPlatform, service: &str, count: usize) {
    let what = format!("{service} has {count} instances");
    eventually(&what, async || instances(platform, service).await.len() == count).await;
}

/// The latest reason in the history of each instance of a service, removed ones included.
pub(super) async fn last_reasons(platform: &TestPlatform, service: &str) -> Vec<Reason> {
    let url = format!("{}/services/{service}", platform.registry());
    let catalog: hubspoke_protocol::CatalogView =
        platform.http.get(url).send().await.unwrap().json().await.unwrap();
    let instances = catalog.services.get(service).into_iter().flatten();
    instances.filter_map(|instance| instance.reasons.last().cloned()).collect()
}
