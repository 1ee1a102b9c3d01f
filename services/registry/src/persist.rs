//! The snapshot file: what a restarted registry starts from, until members have renewed.
//!
//! Written as a whole to a file beside it and renamed over it, so that it is there in whole or not at all, and at
//! most once a second. It is a help, not the truth: what it holds is suspect until it is heard from, and a file
//! that can't be read is set aside, said so, and done without. It holds push keys, so only its owner may read it.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hubspoke_protocol::ServiceInfo;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::task::JoinError;

use crate::api::access::Access;
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
    /// Held while it is written: a write goes on when whoever waited for it is gone.
    writing: Arc<Mutex<()>>,
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
    info: Arc<ServiceInfo>,
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

impl Entry {
    /// Rules may be stricter than when it was written down, and so may whoever wrote to the file.
    fn may_register(&self, access: &Access) -> bool {
        let checked = self.info.check().map_err(|error| error.to_string());
        let checked =
            checked.and_then(|()| access.check_info(&self.info).map_err(|denied| denied.to_string()));
        if let Err(why) = &checked {
            let (service, addr) = (&self.info.name, &self.info.addr);
            tracing::warn!(service, addr, why, "not restored");
        }
        checked.is_ok()
    }
}

impl File {
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join("catalog.json"), writing: Arc::default() }
    }

    /// Puts what the file holds into the catalogue, but for what may not register (any more).
    pub(crate) fn restore(&self, core: &Core, access: &Access) {
        match self.read() {
            Ok(None) => {}
            Ok(Some(mut entries)) => {
                let all = entries.len();
                entries.retain(|entry| entry.may_register(access));
                let instances = core.restore(|now| saved(entries, now));
                let dropped = all.saturating_sub(instances);
                tracing::info!(instances, dropped, file = %self.path.display(), "restored the catalogue");
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
            self.save(core.clone()).await?;
        }
    }

    /// Writes the file. A failure is logged: the registry goes on without.
    pub(crate) async fn save(&self, core: Arc<Core>) -> Result<(), JoinError> {
        let file = self.clone();
        let write = move || {
            // What is saved is read when it is this one's turn, so whichever comes last writes the newest.
            let _writing = file.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let (saved, now) = core.read(|catalog, now| (catalog.saved(), now));
            file.write(saved, Wall::new(now))
        };
        let written = tokio::task::spawn_blocking(write).await?;
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
    let saved = entries.into_iter().map(|entry| Saved {
        info: Arc::new(ServiceInfo { state: None, ..Arc::unwrap_or_clone(entry.info) }),
        registered: wall.moment(entry.registered),
        drained: entry.drained,
    });
    saved.collect()
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;
    use crate::config::Settings;

    #[tokio::test]
    async fn whichever_write_comes_last_holds_the_newest() {
        const COUNT: u16 = 50;
        let folder = tempfile::tempdir().unwrap();
        let file = File::in_folder(folder.path());
        let metrics = hubspoke_chassis::Metrics::new("registry", "test").unwrap();
        let (core, _orders) = Core::new(&Settings::default(), 1, &metrics);
        let core = Arc::new(core);
        let mut saves = JoinSet::new();
        for port in 1..=COUNT {
            core.register(ServiceInfo::new("log", format!("127.0.0.1:{port}"))).unwrap();
            let (file, core) = (file.clone(), core.clone());
            saves.spawn(async move { file.save(core).await });
            tokio::task::yield_now().await;
        }
        while let Some(saved) = saves.join_next().await {
            saved.unwrap().unwrap();
        }
        assert_eq!(file.read().unwrap().unwrap().len(), usize::from(COUNT));
    }
}
