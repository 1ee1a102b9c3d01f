//! Test support: a disk that fails by a script, and what a power cut would leave of it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::disk::{Disk, DiskFactory};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Takes at most this many bytes.
    Short(usize),
    Full,
    Fail,
}

/// Faults of the next operations, in order.
#[derive(Default)]
pub(crate) struct FaultScript {
    faults: Mutex<VecDeque<Fault>>,
    /// Writes block.
    pub(crate) hangs: AtomicBool,
    /// The content that survives a power cut for certain.
    pub(crate) durable: Mutex<Vec<u8>>,
}

impl FaultScript {
    pub(crate) fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().extend(faults);
    }

    /// The disk works from now on.
    pub(crate) fn clear(&self) {
        self.faults.lock().clear();
    }

    pub(crate) fn disks(self: &Arc<Self>) -> DiskFactory {
        let script = Arc::clone(self);
        Box::new(move |file| Box::new(FaultyDisk { file, script: Arc::clone(&script) }))
    }
}

struct FaultyDisk {
    file: Arc<File>,
    script: Arc<FaultScript>,
}

impl FaultyDisk {
    fn next(&self) -> io::Result<usize> {
        match self.script.faults.lock().pop_front().unwrap_or(Fault::None) {
            Fault::None => Ok(usize::MAX),
            Fault::Short(len) => Ok(len),
            Fault::Full => Err(io::ErrorKind::StorageFull.into()),
            Fault::Fail => Err(io::Error::other("EIO")),
        }
    }
}

impl Disk for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Disk::len(&self.file)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while self.script.hangs.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let len = self.next()?.clamp(1, bytes.len());
        self.file.write(&bytes[..len])
    }

    fn sync(&mut self) -> io::Result<()> {
        self.next()?;
        let mut content = vec![0; usize::try_from(Disk::len(&self.file)?).unwrap()];
        self.file.read_exact_at(&mut content, 0)?;
        *self.script.durable.lock() = content;
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.next()?;
        self.script.durable.lock().truncate(usize::try_from(len).unwrap());
        self.file.truncate(len)
    }
}
