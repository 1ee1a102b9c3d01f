//! The snapshot file: what a restarted registry starts from, until members have renewed.
//!
//! Written as a whole to a file beside it and renamed over it, so that it is there in whole or not at all, and at
//! most once a second. It is a help, not the truth: what it holds is suspect until it is heard from, and a file
//! that can't be read is set aside, said so, and done without. It holds push keys, so only its owner may read it.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hub_client::protocol::ServiceInfo;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::task::JoinError;

use crate::catalog::{Saved, Time};
use crate::core::Core;
use crate::view::Wall;

/// Changes within this time are written together.
const PAUSE: Duration = Duration::from_secs(1);
/// The format; another one is set aside like a damaged file.
const VERSION: u32 = 1;

/// The snapshot file.
#[derive(Debug, Clone)]
pub(crate) struct File {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Contents {
    version: u32,
    instances: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    info: ServiceInfo,
    registered: Timestamp,
    #[serde(default)]
    drained: bool,
}

/// Why a file was set aside.
#[derive(Debug, thiserror::Error)]
enum Damaged {
    #[error("can't be read")]
    Read(#[from] io::Error),
    #[error("holds no catalogue")]
    Parse(#[from] serde_json::Error),
    #[error("is of format {0}, not {VERSION}")]
    Version(u32),
}

impl File {
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join("catalog.json") }
    }

    /// Puts what the file holds into the catalogue.
    pub(crate) fn restore(&self, core: &Core) {
        match self.read() {
            Ok(None) => {}
            Ok(Some(entries)) => {
                let instances = core.restore(|now| saved(entries, now));
                tracing::info!(instances, file = %self.path.display(), "restored the catalogue");
            }
            Err(error) => self.set_aside(&error),
        }
    }

    fn read(&self) -> Result<Option<Vec<Entry>>, Damaged> {
        let text = match std::fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let contents: Contents = serde_json::from_slice(&text)?;
        if contents.version == VERSION {
            Ok(Some(contents.instances))
        } else {
            Err(Damaged::Version(contents.version))
        }
    }

    fn set_aside(&self, error: &Damaged) {
        let aside = self.path.with_extension(format!("damaged-{}.json", Timestamp::now().as_second()));
        let moved = std::fs::rename(&self.path, &aside);
        tracing::error!(
            error = error as &dyn std::error::Error,
            file = %self.path.display(),
            aside = %aside.display(),
            set_aside = moved.is_ok(),
            "the snapshot file is damaged; starting without it"
        );
    }

    /// Writes the file after each change, until it is dropped.
    pub(crate) async fn keep(self, core: Arc<Core>) -> Result<(), JoinError> {
        loop {
            core.unsaved.notified().await;
            tokio::time::sleep(PAUSE).await;
            self.save(&core).await?;
        }
    }

    /// Writes the file. A failure is logged: the registry goes on without.
    pub(crate) async fn save(&self, core: &Core) -> Result<(), JoinError> {
        let (saved, now) = core.read(|catalog, now| (catalog.saved(), now));
        let (file, wall) = (self.clone(), Wall::new(now));
        let written = tokio::task::spawn_blocking(move || file.write(saved, wall)).await?;
        if let Err(error) = written {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, file = %self.path.display(), "can't write the snapshot file");
        }
        Ok(())
    }

    fn write(&self, saved: Vec<Saved>, wall: Wall) -> io::Result<()> {
        let entry = |saved: Saved| Entry {
            registered: wall.day(saved.registered),
            info: saved.info,
            drained: saved.drained,
        };
        let contents = Contents { version: VERSION, instances: saved.into_iter().map(entry).collect() };
        let text = serde_json::to_vec(&contents)?;
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let new = self.path.with_extension("new.json");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)
    }
}

fn saved(entries: Vec<Entry>, now: Time) -> Vec<Saved> {
    let wall = Wall::new(now);
    let valid = entries.into_iter().filter(|entry| entry.info.check().is_ok());
    let saved = valid.map(|entry| Saved {
        info: entry.info,
        registered: wall.moment(entry.registered),
        drained: entry.drained,
    });
    saved.collect()
}
