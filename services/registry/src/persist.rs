//! The snapshot file, from which a restarted registry serves until members have renewed.
//!
//! It is written to a temporary file that then replaces it, so that it is always complete, and usually at most once a
//! second. An operator's call is answered when it is written.
//! Its content is not trusted: restored instances are suspect until they answer, and a damaged file is renamed,
//! logged and ignored. It contains push keys, so only its owner may read it.

use std::error::Error;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hubspoke_protocol::ServiceInfo;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::JoinError;

use crate::access::Access;
use crate::catalog::{InstanceKey, SavedCatalog, SavedInstance};
use crate::dispatch::Dispatcher;
use crate::shared::SharedCatalog;
use crate::view::WallClock;

/// Changes within this time are written together, unless an operator waits.
const WRITE_DELAY: Duration = Duration::from_secs(1);
/// The version of the format. A file of another version counts as damaged.
const VERSION: u32 = 1;

/// The snapshot file.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFile {
    path: PathBuf,
    /// Held while the file is written, which continues if the task that waits for it is aborted.
    writing: Arc<Mutex<()>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SnapshotContents {
    version: u32,
    instances: Vec<SnapshotEntry>,
    /// Removed core members that are still checked.
    #[serde(default)]
    removed: Vec<RemovedEntry>,
    /// Drained addresses without an instance.
    #[serde(default)]
    drains: Vec<DrainEntry>,
    /// The self-protection switch, if an operator has set it to something else than the configuration.
    #[serde(default)]
    protection: Option<bool>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SnapshotEntry {
    info: Arc<ServiceInfo>,
    registered: Timestamp,
    #[serde(default)]
    drained: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RemovedEntry {
    instance: SnapshotEntry,
    at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DrainEntry {
    name: String,
    addr: String,
    /// When its last instance left.
    since: Timestamp,
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
enum SnapshotError {
    #[error("the file can't be read")]
    Read(#[from] io::Error),
    #[error("the file is not a snapshot")]
    Parse(#[from] serde_json::Error),
    #[error("the file has format version {0}, not {VERSION}")]
    Version(u32),
}

impl SnapshotContents {
    fn new(saved: SavedCatalog, clock: WallClock) -> Self {
        let entry = |saved: SavedInstance| SnapshotEntry {
            registered: clock.timestamp(saved.registered),
            info: saved.info,
            drained: saved.drained,
        };
        let removed = |(saved, at)| RemovedEntry { instance: entry(saved), at: clock.timestamp(at) };
        let drain = |(key, since): (InstanceKey, _)| {
            let (name, addr) = (key.name.to_string(), key.addr.to_string());
            DrainEntry { name, addr, since: clock.timestamp(since) }
        };
        Self {
            version: VERSION,
            instances: saved.instances.into_iter().map(entry).collect(),
            removed: saved.removed.into_iter().map(removed).collect(),
            drains: saved.drains.into_iter().map(drain).collect(),
            protection: saved.protection,
        }
    }

    fn into_saved(self, clock: WallClock) -> SavedCatalog {
        let removed = |entry: RemovedEntry| (entry.instance.into_saved(clock), clock.time(entry.at));
        let drain = |drain: DrainEntry| (InstanceKey::new(&drain.name, &drain.addr), clock.time(drain.since));
        SavedCatalog {
            instances: self.instances.into_iter().map(|entry| entry.into_saved(clock)).collect(),
            removed: self.removed.into_iter().map(removed).collect(),
            drains: self.drains.into_iter().map(drain).collect(),
            protection: self.protection,
        }
    }
}

impl SnapshotEntry {
    fn into_saved(self, clock: WallClock) -> SavedInstance {
        let info = Arc::new(ServiceInfo { state: None, ..Arc::unwrap_or_clone(self.info) });
        SavedInstance { info, registered: clock.time(self.registered), drained: self.drained }
    }

    /// The rules may have become stricter since the file was written, or somebody may have edited it.
    fn may_register(&self, access: &Access) -> bool {
        let invalid = self.info.check().err().map(|error| Box::new(error) as Box<dyn Error>);
        let refused = || access.check_info(&self.info).err().map(|denied| Box::new(denied) as Box<dyn Error>);
        let Some(error) = invalid.or_else(refused) else { return true };
        let (service, addr) = (&self.info.name, &self.info.addr);
        tracing::warn!(service, addr, error = &*error, "instance not restored");
        false
    }
}

impl SnapshotFile {
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join("catalog.json"), writing: Arc::default() }
    }

    /// Restores the instances in the file, except for those that may not register.
    pub(crate) fn restore(&self, dispatcher: &Dispatcher, access: &Access) {
        let Some((contents, total)) = self.load(access) else { return };
        let instances = dispatcher.restore(|now| contents.into_saved(WallClock::new(now)));
        let dropped = total.saturating_sub(instances);
        let file = self.path.display();
        tracing::info!(instances, dropped, %file, "restored the catalogue from the snapshot file");
    }

    /// What is in the file, except for instances that may not register.
    pub(crate) fn saved(&self, access: &Access, clock: WallClock) -> Option<SavedCatalog> {
        self.load(access).map(|(contents, _)| contents.into_saved(clock))
    }

    /// The contents, and how many instances there were before those were left out that may not register.
    fn load(&self, access: &Access) -> Option<(SnapshotContents, usize)> {
        let mut contents = self.read().unwrap_or_else(|error| {
            self.set_aside(&error);
            None
        })?;
        let total = contents.instances.len();
        contents.instances.retain(|entry| entry.may_register(access));
        contents.removed.retain(|entry| entry.instance.may_register(access));
        Some((contents, total))
    }

    fn read(&self) -> Result<Option<SnapshotContents>, SnapshotError> {
        let text = match std::fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let contents: SnapshotContents = serde_json::from_slice(&text)?;
        let version = contents.version;
        if version == VERSION { Ok(Some(contents)) } else { Err(SnapshotError::Version(version)) }
    }

    fn set_aside(&self, error: &SnapshotError) {
        let aside = self.path.with_extension(format!("damaged-{}.json", Timestamp::now().as_second()));
        let moved = std::fs::rename(&self.path, &aside);
        tracing::error!(
            error = error as &dyn Error,
            file = %self.path.display(),
            renamed_to = %aside.display(),
            renamed = moved.is_ok(),
            "can't use the snapshot file: starting without it"
        );
    }

    /// Writes the file after each change. Returns only on errors.
    ///
    /// # Errors
    /// If the writing task panicked.
    pub(crate) async fn run(self, dispatcher: Arc<Dispatcher>) -> Result<(), JoinError> {
        loop {
            dispatcher.unsaved.due(WRITE_DELAY).await;
            let number = dispatcher.unsaved.begin();
            self.save(dispatcher.catalog.clone()).await?;
            dispatcher.unsaved.end(number);
        }
    }

    /// Writes the file. A failure is logged, and the registry continues without a current file.
    ///
    /// # Errors
    /// If the writing task panicked.
    pub(crate) async fn save(&self, catalog: Arc<SharedCatalog>) -> Result<(), JoinError> {
        let file = self.clone();
        let write = move || {
            // The catalogue is read with the lock held, so that the last write has the newest state.
            let _writing = file.writing.lock();
            let (saved, now) = catalog.with(|catalog, now| (catalog.saved(), now));
            file.write(saved, WallClock::new(now))
        };
        if let Err(error) = tokio::task::spawn_blocking(write).await? {
            let error: &dyn Error = &error;
            tracing::error!(error, file = %self.path.display(), "can't write the snapshot file");
        }
        Ok(())
    }

    fn write(&self, saved: SavedCatalog, clock: WallClock) -> io::Result<()> {
        let text = serde_json::to_vec(&SnapshotContents::new(saved, clock))?;
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

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;
    use crate::config::Settings;
    use crate::exchange::MemberDialer;

    #[tokio::test]
    async fn the_last_write_has_the_newest_state() {
        const COUNT: u16 = 50;
        let folder = tempfile::tempdir().unwrap();
        let file = SnapshotFile::in_folder(folder.path());
        let metrics = hubspoke_chassis::Metrics::new("registry", "test").unwrap();
        let (dispatcher, _commands) =
            Dispatcher::new(&Settings::default(), 1, &metrics, MemberDialer::default());
        let mut saves = JoinSet::new();
        for port in 1..=COUNT {
            dispatcher.register(ServiceInfo::new("log", format!("127.0.0.1:{port}")), None, None).unwrap();
            let (file, catalog) = (file.clone(), dispatcher.catalog.clone());
            saves.spawn(async move { file.save(catalog).await });
            tokio::task::yield_now().await;
        }
        while let Some(saved) = saves.join_next().await {
            saved.unwrap().unwrap();
        }
        assert_eq!(file.read().unwrap().unwrap().instances.len(), usize::from(COUNT));
    }
}
