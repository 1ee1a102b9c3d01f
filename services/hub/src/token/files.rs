//! The tokens file, and the files with tokens beside it.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::edit::TokenLines;
use crate::files::{PUBLIC_MODE, SECRET_MODE, folder_of, lock_folder, replace};

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
        lock_folder(folder_of(&self.path))
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
        replace(&self.path, lines.text(), PUBLIC_MODE) // only hashes
    }
}

/// Writes a token that only its owner may read.
pub(super) fn write_secret(path: &Path, token: &str) -> anyhow::Result<()> {
    replace(path, &format!("{token}\n"), SECRET_MODE)
}
