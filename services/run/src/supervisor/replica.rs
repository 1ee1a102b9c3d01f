//! One replica: instances that follow each other.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::instance::{Instance, Next, Slot};
use super::shared::Shared;
use crate::restart::Restarts;
use crate::spec::ProgramSpec;

/// Replace the instance by a new one. The answer is whether that worked.
pub(super) struct Replace(pub(super) oneshot::Sender<bool>);

pub(super) struct Replica {
    pub(super) shared: Arc<Shared>,
    pub(super) spec: Arc<ProgramSpec>,
    pub(super) slot: Slot,
    pub(super) replace: mpsc::Receiver<Replace>,
    pub(super) stop: CancellationToken,
    /// Set when the first instance is ready.
    pub(super) ready: watch::Sender<bool>,
}

impl Replica {
    /// Runs until `stop`, or until an instance has ended that is not started again. Returns its exit code.
    pub(super) async fn run(mut self) -> u8 {
        let mut restarts = Restarts::new(self.spec.restart);
        let mut current = self.start(0);
        let mut is_ready = false;
        loop {
            tokio::select! {
                next = current.next(is_ready) => {
                    let exit = match next {
                        Next::Ready => {
                            is_ready = true;
                            self.ready.send_replace(true);
                            continue;
                        }
                        Next::Ended(exit) => exit,
                    };
                    match restarts.after_exit(exit.code, exit.ran) {
                        Some(pause) => {
                            let text = format!("{} restarts in {} s", self.slot.label, pause.as_secs_f64());
                            self.shared.terminal.remark(&text).await;
                            tokio::select! {
                                () = sleep(pause) => {}
                                () = self.stop.cancelled() => return exit.code,
                                Some(Replace(done)) = self.replace.recv() => drop(done.send(true)),
                            }
                        }
                        // A program that is being worked on starts again when its files change.
                        None if !self.spec.watch.is_empty() => {
                            let text = format!("{} starts again when a file changes", self.slot.label);
                            self.shared.terminal.remark(&text).await;
                            tokio::select! {
                                () = self.stop.cancelled() => return exit.code,
                                Some(Replace(done)) = self.replace.recv() => drop(done.send(true)),
                            }
                        }
                        None => return exit.code,
                    }
                    current = self.start(restarts.count);
                    is_ready = false;
                }
                () = self.stop.cancelled() => return current.stop().await.code,
                Some(Replace(done)) = self.replace.recv() => {
                    let (now, replaced) = self.replace(current, restarts.count).await;
                    current = now;
                    is_ready = false;
                    let _ = done.send(replaced); // whoever asked may be gone
                }
            }
        }
    }

    fn start(&self, restarts: u32) -> Instance {
        Instance::start(&self.shared, &self.spec, &self.slot, restarts)
    }

    /// Starts another instance and stops the old one when the new one is ready. The old one goes on if it never is.
    /// With a fixed port, or none, there can't be two at once.
    async fn replace(&self, old: Instance, restarts: u32) -> (Instance, bool) {
        if self.spec.port.is_some() || matches!(self.spec.ready, crate::spec::Ready::None) {
            old.stop().await;
            let mut new = self.start(restarts);
            let ready = tokio::select! {
                ready = new.ready() => ready,
                () = self.stop.cancelled() => false,
            };
            return (new, ready);
        }
        let mut new = self.start(restarts);
        let ready = tokio::select! {
            ready = new.ready() => ready,
            () = self.stop.cancelled() => false,
        };
        if ready {
            old.stop().await;
            return (new, true);
        }
        if !self.stop.is_cancelled() {
            let text = format!("{} goes on as it was: the new one did not get ready", self.slot.label);
            self.shared.terminal.remark(&text).await;
        }
        new.stop().await;
        (old, false)
    }
}
