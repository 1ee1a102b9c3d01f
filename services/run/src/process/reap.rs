//! Zombies that this process gets from others: as process 1 of a container, and when a supervisor is killed.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::signal::unix::{SignalKind, signal};

use super::names::INSTANCE_VARIABLE;
use super::os;
use super::table::ProcessTable;

/// The processes that others of this process's code wait for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Awaited(Arc<Mutex<HashSet<u32>>>);

impl Awaited {
    /// Starts a process and adds it, before anybody can take it for one that nobody waits for.
    pub(crate) fn start<T>(&self, start: impl FnOnce() -> io::Result<(u32, T)>) -> io::Result<(u32, T)> {
        let mut awaited = self.0.lock();
        let (pid, child) = start()?;
        awaited.insert(pid);
        Ok((pid, child))
    }

    pub(crate) fn remove(&self, pid: u32) {
        self.0.lock().remove(&pid);
    }

    /// Collects the exit codes of children that nobody else waits for. Returns only if it can't.
    pub(crate) async fn reap_others(self) {
        if let Err(error) = os::become_subreaper() {
            tracing::warn!(error = &error as &dyn std::error::Error, "can't adopt detached processes");
        }
        let Ok(mut ended) = signal(SignalKind::child()) else { return };
        let own = std::process::id();
        loop {
            ended.recv().await;
            let awaited = self.0.lock();
            let table = ProcessTable::read();
            for zombie in table.iter().filter(|process| process.parent == own && process.is_zombie) {
                if !awaited.contains(&zombie.pid)
                    && let Some(pid) = pid(zombie.pid)
                {
                    let _ = waitpid(Some(pid), WaitOptions::NOHANG); // somebody else may have been faster
                }
            }
        }
    }
}

/// Kills what a killed supervisor has left of an instance: processes that have become children of this one.
pub(crate) fn kill_left(instance: &str) {
    let mark = format!("{INSTANCE_VARIABLE}={instance}");
    let own = std::process::id();
    // What is killed leaves children of its own behind, so a few rounds.
    for _ in 0..10 {
        let table = ProcessTable::read();
        let left: Vec<u32> = table
            .below(own)
            .iter()
            .filter(|process| !process.is_zombie && has_variable(process.pid, &mark))
            .map(|process| process.pid)
            .collect();
        if left.is_empty() {
            return;
        }
        for pid in left.into_iter().filter_map(pid) {
            let _ = kill_process(pid, Signal::KILL); // it may have ended
        }
    }
}

fn has_variable(process: u32, mark: &str) -> bool {
    let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
}

fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(number).ok()?)
}
