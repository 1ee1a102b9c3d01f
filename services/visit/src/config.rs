//! The `[visit]` table.

use std::path::PathBuf;

use hubspoke_chassis::Table;
use serde::{Deserialize, Serialize};

/// The visit service's own settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VisitConfig {
    /// Where the count lives: `memory` (from 1 again after a restart) or `file`.
    pub state: State,
    /// The file, with `state = "file"`.
    pub file: PathBuf,
}

/// Where the count lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nowhere else: a restart begins at 1.
    #[default]
    Memory,
    /// In a file: a number given out is never given again, not even after a power cut.
    File,
}

impl Default for VisitConfig {
    fn default() -> Self {
        Self { state: State::Memory, file: "visit.count".into() }
    }
}

impl Table for VisitConfig {
    fn check(&self) -> Result<(), (String, String)> {
        if self.file.file_name().is_none() {
            return Err(("file".to_owned(), "is no file name".to_owned()));
        }
        Ok(())
    }
}
