//! The state that all instances share.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::platform::Platform;
use crate::port::Ports;
use crate::process::Awaited;
use crate::spec::ProgramSpec;
use crate::terminal::{Prefix, Terminal, label};

pub(super) struct Shared {
    pub(super) platform: Platform,
    pub(super) terminal: Terminal,
    pub(super) ports: Ports,
    pub(super) awaited: Awaited,
    /// Width of the prefixes; `None` if there is one replica only, which needs none.
    width: Option<usize>,
    replicas: AtomicUsize,
}

impl Shared {
    pub(super) fn new(
        platform: Platform,
        terminal: Terminal,
        awaited: Awaited,
        programs: &[ProgramSpec],
    ) -> Self {
        let labels = programs.iter().map(|program| {
            label(&program.name, (program.replicas > 1).then_some(program.replicas)).chars().count()
        });
        let several = programs.len() > 1 || programs.iter().any(|program| program.replicas > 1);
        let width = several.then(|| labels.max().unwrap_or(0));
        Self { platform, terminal, ports: Ports::default(), awaited, width, replicas: AtomicUsize::new(0) }
    }

    /// The prefix of the next replica.
    pub(super) fn prefix(&self, name: &str, replica: Option<u16>) -> Prefix {
        let n = self.replicas.fetch_add(1, Relaxed);
        self.width.map_or_else(Prefix::default, |width| Prefix::new(name, replica, width, n))
    }
}
