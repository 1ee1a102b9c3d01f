//! The tokens file, and the files with tokens beside it. A file is replaced as a whole, so readers see the old content or
//! the new.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::edit::TokenLines;

/// The tokens file has hashes only, and the services that read it may have other users.
const HASHES_MODE: u32 = 0o644;
const SECRET_MODE: u32 = 0o600;

/// A tokens file in its folder.
#[derive(Debug)]
pub(super) struct TokenFolder {
    path: PathBuf,
}

impl TokenFolder {
    /// Through symbolic links: the file is replaced, not the link.
    pub(super) fn of(path: &Path) -> Self {
        Self { path: std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()) }
    }

    /// A file beside the tokens file.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        folder_of(&self.path).join(name)
    }

    pub(super) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Waits until no other command changes the file, for as long as the result lives. Makes the folder if there is
    /// none.
    pub(super) fn lock(&self) -> anyhow::Result<File> {
        let folder = folder_of(&self.path);
        let failed = || format!("can't use the folder {}", folder.display());
        DirBuilder::new().recursive(true).mode(0o755).create(folder).with_context(failed)?;
        let lock = File::open(folder).with_context(failed)?;
        lock.lock().with_context(failed)?;
        Ok(lock)
    }

    /// The lines, which are valid; none if there is no file.
    pub(super) fn read(&self) -> anyhow::Result<TokenLines> {
        let lines = match std::fs::read_to_string(&self.path) {
            Ok(text) => TokenLines::new(text),
            Err(error) if error.kind() == ErrorKind::NotFound => TokenLines::default(),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("can't read the tokens file {}", self.path.display()));
            }
        };
        lines.parse().with_context(|| format!("the tokens file {} is invalid", self.path.display()))?;
        Ok(lines)
    }

    pub(super) fn write(&self, lines: &TokenLines) -> anyhow::Result<()> {
        replace(&self.path, lines.text(), HASHES_MODE)
    }
}

/// Writes a token that only its owner may read.
pub(super) fn write_secret(path: &Path, token: &str) -> anyhow::Result<()> {
    replace(path, &format!("{token}\n"), SECRET_MODE)
}

fn replace(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let temporary = folder_of(path).join(format!(".{name}.{}", std::process::id()));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?; // whatever the umask is
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(folder_of(path))?.sync_all()
    };
    write().with_context(|| format!("can't write {}", path.display()))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
