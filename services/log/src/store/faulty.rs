//! For tests: a disk that fails by a script, and what a power cut would leave of it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::MakeDisk;
use super::appender::Disk;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Takes this many bytes at most.
    Short(usize),
    Full,
    Fail,
}

/// What happens to the next calls.
#[derive(Default)]
pub(crate) struct Script {
    faults: Mutex<VecDeque<Fault>>,
    /// No write returns.
    pub(crate) hangs: AtomicBool,
    /// What a power cut leaves at the least.
    pub(crate) durable: Mutex<Vec<u8>>,
}

impl Script {
    pub(crate) fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    pub(crate) fn disk(self: &Arc<Self>) -> MakeDisk {
        let script = Arc::clone(self);
        Box::new(move |file| Box::new(Faulty { file, script: Arc::clone(&script) }))
    }
}

struct Faulty {
    file: Arc<File>,
    script: Arc<Script>,
}

impl Faulty {
    fn next(&self) -> io::Result<usize> {
        match self.script.faults.lock().unwrap().pop_front().unwrap_or(Fault::None) {
            Fault::None => Ok(usize::MAX),
            Fault::Short(len) => Ok(len),
            Fault::Full => Err(io::ErrorKind::StorageFull.into()),
            Fault::Fail => Err(io::Error::other("EIO")),
        }
    }
}

impl Disk for Faulty {
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
        *self.script.durable.lock().unwrap() = content;
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.next()?;
        self.script.durable.lock().unwrap().truncate(usize::try_from(len).unwrap());
        self.file.truncate(len)
    }
}
