//! The process, and the `[visit]` table.

use std::path::PathBuf;

use hubspoke_chassis::{Process, Table};
use hubspoke_etcd::Config as EtcdConfig;
use serde::{Deserialize, Serialize};

/// The visit service's process: its name and default address.
pub const PROCESS: Process = Process::new("visit", env!("CARGO_PKG_VERSION")).with_listen("127.0.0.1:20003");

/// The visit service's own settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct VisitConfig {
    /// Where the count is kept: `memory` (a restart begins at 1), `file`, or `etcd` (all replicas share it).
    pub state: CountStorage,
    /// The file, if `state` is `file`.
    pub file: PathBuf,
    /// The table `[etcd]`, if `state` is `etcd`.
    pub etcd: EtcdConfig,
}

/// Where the count is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CountStorage {
    /// In memory only: a restart begins at 1.
    #[default]
    Memory,
    /// In a file: no number is given out twice, not even after a power cut.
    File,
    /// In etcd: all replicas share one count.
    Etcd,
}

impl Default for VisitConfig {
    fn default() -> Self {
        Self { state: CountStorage::Memory, file: "visit.count".into(), etcd: EtcdConfig::default() }
    }
}

impl VisitConfig {
    /// The default, but with the count kept in a file.
    pub fn in_file() -> Self {
        Self { state: CountStorage::File, ..Self::default() }
    }
}

impl Table for VisitConfig {
    const BESIDE: &'static [&'static str] = &["etcd"];

    fn check(&self) -> Result<(), (String, String)> {
        if self.file.file_name().is_none() {
            return Err(("file".to_owned(), "is not a file name".to_owned()));
        }
        let checked =
            if self.state == CountStorage::Etcd { self.etcd.check_in_use() } else { self.etcd.check() };
        checked.map_err(|invalid| (format!("etcd.{}", invalid.key), invalid.reason))
    }
}
