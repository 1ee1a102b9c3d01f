//! The state file: one decimal number, replaced as a whole, so that it is never half written.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

/// Why the state file can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another process counts in it.
    #[error(
        "{} is in use by another process; stop it, or choose another file with visit.file (hub.data_dir in hub up)",
        .0.display()
    )]
    InUse(PathBuf),
    /// It contains something else. Going on from 1 would give out numbers twice.
    #[error("{} does not contain a count; correct it or remove it", .0.display())]
    Invalid(PathBuf),
    /// The file system refuses.
    #[error("can't access {}", path.display())]
    Io {
        /// The file concerned.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    /// One write at a time: a request that is cancelled leaves its write running.
    writing: Mutex<()>,
    /// Locked while the process counts.
    _lock: File,
}

impl StateFile {
    /// Opens the file, and creates its folder if there is none; returns it with the number in it, or 0 if there is no
    /// file yet.
    pub(super) fn open(path: &Path) -> Result<(Self, u64), StateError> {
        let failed = |source| StateError::Io { path: path.to_owned(), source };
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        }
        let lock = private_file().open(sibling(path, "lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let number = match std::fs::read_to_string(path) {
            Ok(text) => text.trim().parse().map_err(|_| StateError::Invalid(path.to_owned()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(StateError::Invalid(path.to_owned()));
            }
            Err(error) => return Err(failed(error)),
        };
        Ok((Self { path: path.to_owned(), writing: Mutex::default(), _lock: lock }, number))
    }

    /// Returns once `number` survives a power cut.
    pub(super) fn write(&self, number: u64) -> io::Result<()> {
        let _writing = self.writing.lock();
        let next = sibling(&self.path, "next");
        let mut file = private_file().truncate(true).open(&next)?;
        writeln!(file, "{number}")?;
        file.sync_all()?;
        std::fs::rename(&next, &self.path)?;
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

/// `.NAME.EXTENSION` in the same folder.
fn sibling(path: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".");
    name.push(extension);
    path.with_file_name(name)
}
