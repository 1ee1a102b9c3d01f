//! All replicas of one program.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::instance::Slot;
use super::replica::{Replace, Replica};
use super::shared::Shared;
use crate::spec::ProgramSpec;
use crate::terminal::label;
use crate::watch::FileWatch;

/// A program with its replicas.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) stop: CancellationToken,
    /// Cancelled when all replicas have ended.
    pub(super) ended: CancellationToken,
    ready: watch::Receiver<bool>,
    task: AbortOnDropHandle<u8>,
}

/// Whether a program that others need is ready.
pub(super) struct Readiness {
    ready: watch::Receiver<bool>,
}

impl Readiness {
    /// Waits until it is ready, or has ended.
    async fn wait(mut self) {
        let _ = self.ready.wait_for(|ready| *ready).await; // an error: it has ended
    }
}

impl Group {
    /// Starts a program as soon as those that it needs are ready.
    pub(super) fn start(
        shared: &Arc<Shared>,
        spec: ProgramSpec,
        needed: Vec<Readiness>,
        stop: CancellationToken,
        ended: CancellationToken,
    ) -> Self {
        let (ready_of, ready) = watch::channel(false);
        let name = spec.name.clone();
        let run =
            Run { shared: Arc::clone(shared), spec: Arc::new(spec), stop: stop.clone(), ready: ready_of };
        let done = ended.clone().drop_guard();
        let task = tokio::spawn(async move {
            let _done = done;
            let needs = async {
                for need in needed {
                    need.wait().await;
                }
            };
            tokio::select! {
                () = needs => {}
                () = run.stop.cancelled() => return 0,
            }
            run.run().await
        });
        Self { name, stop, ended, ready, task: AbortOnDropHandle::new(task) }
    }

    pub(super) fn readiness(&self) -> Readiness {
        Readiness { ready: self.ready.clone() }
    }

    /// The first exit code of its replicas that is not 0, when all have ended.
    pub(super) async fn code(self) -> u8 {
        self.task.await.unwrap_or(1)
    }
}

struct Run {
    shared: Arc<Shared>,
    spec: Arc<ProgramSpec>,
    stop: CancellationToken,
    /// Set when all replicas are ready.
    ready: watch::Sender<bool>,
}

impl Run {
    async fn run(&self) -> u8 {
        let mut replicas = JoinSet::new();
        let (mut replace, mut ready) = (Vec::new(), Vec::new());
        for replica in 1..=self.spec.replicas {
            let number = (self.spec.replicas > 1).then_some(replica);
            let slot = Slot {
                replica,
                label: label(&self.spec.name, number),
                prefix: self.shared.prefix(&self.spec.name, number),
            };
            let (replace_it, replaced) = mpsc::channel(1);
            let (ready_of, is_ready) = watch::channel(false);
            replace.push(replace_it);
            ready.push(is_ready);
            let replica = Replica {
                shared: Arc::clone(&self.shared),
                spec: Arc::clone(&self.spec),
                slot,
                replace: replaced,
                stop: self.stop.clone(),
                ready: ready_of,
            };
            replicas.spawn(replica.run());
        }
        let all_ready = async {
            for mut ready in ready {
                let _ = ready.wait_for(|ready| *ready).await; // an error: it has ended
            }
            self.ready.send_replace(true);
            std::future::pending::<()>().await;
        };
        let all_ended = async {
            let mut first = 0;
            while let Some(ended) = replicas.join_next().await {
                let code = ended.unwrap_or(1);
                first = if first == 0 { code } else { first };
            }
            first
        };
        tokio::select! {
            code = all_ended => code,
            () = all_ready => 0, // never
            () = self.watch(&replace) => 0, // never
        }
    }

    /// Replaces one replica after the other when a file changes. Never ends.
    async fn watch(&self, replicas: &[mpsc::Sender<Replace>]) {
        if self.spec.watch.is_empty() {
            return std::future::pending().await;
        }
        let dir: PathBuf = self.spec.dir.clone().unwrap_or_else(|| ".".into());
        let mut files = match FileWatch::new(&self.spec.watch, &dir) {
            Ok(files) => files,
            Err(error) => {
                let error = hubspoke_client::with_causes(&error);
                self.shared
                    .terminal
                    .remark(&format!("{} is not restarted on changes: {error}", self.spec.name))
                    .await;
                return std::future::pending().await;
            }
        };
        while let Some(path) = files.changed().await {
            let text = format!("{} is restarted: {} has changed", self.spec.name, path.display());
            self.shared.terminal.remark(&text).await;
            for replica in replicas {
                let (done, replaced) = oneshot::channel();
                // A replica that has ended for good is not started again.
                if replica.send(Replace(done)).await.is_ok() && !replaced.await.unwrap_or(true) {
                    break; // the others would fare no better
                }
            }
        }
        std::future::pending().await
    }
}
