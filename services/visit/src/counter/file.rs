//! The state file: one decimal number, replaced as a whole, so that it is never half written.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::StateError;

#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    /// One write at a time: a visitor who gives up leaves a write behind that still runs.
    writing: Mutex<()>,
    /// Held while the process counts.
    _lock: File,
}

impl Reserve {
    /// The file, and the number in it; 0 where there is no file yet.
    pub(super) fn open(path: &Path) -> Result<(Self, u64), StateError> {
        let failed = |error| StateError::Io { path: path.to_owned(), error };
        let lock = private().open(beside(path, "lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let last = match std::fs::read_to_string(path) {
            Ok(text) => text.trim().parse().map_err(|_| StateError::Unreadable(path.to_owned()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(StateError::Unreadable(path.to_owned()));
            }
            Err(error) => return Err(failed(error)),
        };
        Ok((Self { path: path.to_owned(), writing: Mutex::default(), _lock: lock }, last))
    }

    /// Returns once `number` survives a power cut.
    pub(super) fn write(&self, number: u64) -> io::Result<()> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = beside(&self.path, "next");
        let mut file = private().truncate(true).open(&next)?;
        writeln!(file, "{number}")?;
        file.sync_all()?;
        std::fs::rename(&next, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

/// `.NAME.EXTENSION` in the same folder.
fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".");
    name.push(extension);
    path.with_file_name(name)
}
