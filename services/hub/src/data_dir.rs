//! The data folder of `hub up`, locked for one process: two would count the same visits and write the same
//! files.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context, bail};

/// Locked while the process runs; holds its id, for the message that another one prints.
const LOCK: &str = ".hub.lock";

/// The lock of the folder. Dropped, it is free again.
#[derive(Debug)]
pub(crate) struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Creates the folder if it does not exist, and locks it.
    ///
    /// # Errors
    /// If another process has locked it, or it can't be written to.
    pub(crate) fn lock(dir: &Path) -> anyhow::Result<Self> {
        let failed = || format!("can't use the data folder {} (hub.data_dir)", dir.display());
        DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = options.open(dir.join(LOCK)).with_context(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let holder = lock
                    .take(20)
                    .read_to_string(&mut text)
                    .ok()
                    .and_then(|_| text.trim().parse::<u32>().ok());
                let holder = holder.map(|id| format!(" (process {id})")).unwrap_or_default();
                bail!(
                    "the data folder {} is in use: another `hub up` is running{holder}; stop it, or choose another \
                     folder with hub.data_dir (HUB_HUB__DATA_DIR)",
                    dir.display()
                );
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).with_context(failed)?;
        Ok(Self { _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once_and_free_again_after() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("new/data");
        let first = DataDir::lock(&dir).unwrap();
        let error = DataDir::lock(&dir).unwrap_err().to_string();
        let expected = format!("another `hub up` is running (process {}); stop it", std::process::id());
        assert!(error.contains(&expected) && error.contains("HUB_HUB__DATA_DIR"), "{error}");
        drop(first);
        // A lock file with something else in it, as after a full disk, is no obstacle.
        std::fs::write(dir.join(LOCK), "\u{1}garbage, longer than any number").unwrap();
        let second = DataDir::lock(&dir).unwrap();
        assert_eq!(std::fs::read_to_string(dir.join(LOCK)).unwrap(), format!("{}\n", std::process::id()));
        drop(second);
    }

    #[test]
    fn a_folder_that_cant_be_used_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = format!("{:#}", DataDir::lock(&file).unwrap_err());
        assert!(
            error.starts_with(&format!("can't use the data folder {} (hub.data_dir): ", file.display())),
            "{error}"
        );
    }
}
