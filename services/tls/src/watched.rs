//! Files that are read again by content, and what was made of them last.

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use crate::cert::{CertError, MAX_FILE};

/// The value made of the content of some files, replaced as a whole when that changes and can be used.
#[derive(Debug)]
pub(crate) struct Watched<T, C> {
    current: ArcSwap<T>,
    /// The content of all files, as it was used last.
    content: Mutex<C>,
    generation: AtomicU64,
    failures: AtomicU64,
    failing: AtomicBool,
}

impl<T, C: PartialEq> Watched<T, C> {
    /// Makes a value of what the files contain.
    pub(crate) fn open(
        content: C,
        parse: impl FnOnce(&C) -> Result<T, CertError>,
    ) -> Result<Self, CertError> {
        Ok(Self {
            current: ArcSwap::from_pointee(parse(&content)?),
            content: Mutex::new(content),
            generation: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        })
    }

    /// Reads the files again. If their content has changed and can be used, it replaces the value; otherwise the last one
    /// stays, which is logged once. Whether it was replaced.
    pub(crate) fn reload(
        &self,
        read: impl FnOnce() -> Result<C, CertError>,
        parse: impl FnOnce(&C) -> Result<T, CertError>,
    ) -> bool {
        let mut content = self.content.lock();
        let fresh = read().and_then(|fresh| {
            if fresh == *content {
                return Ok(None);
            }
            Ok(Some((parse(&fresh)?, fresh)))
        });
        match fresh {
            Ok(Some((value, fresh))) => {
                self.current.store(Arc::new(value));
                *content = fresh;
                self.generation.fetch_add(1, Relaxed);
                self.failing.store(false, Relaxed);
                return true;
            }
            Ok(None) => self.failing.store(false, Relaxed),
            Err(error) => {
                self.failures.fetch_add(1, Relaxed);
                if !self.failing.swap(true, Relaxed) {
                    let error = &error as &dyn Error;
                    tracing::warn!(error, "can't use the new certificates; the last ones stay in use");
                }
            }
        }
        false
    }

    /// The value in use.
    pub(crate) fn get(&self) -> Guard<Arc<T>> {
        self.current.load()
    }

    /// How many times the value was replaced.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// How many times the files could not be used.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }
}

/// The content of a file of bounded length.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, CertError> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut content));
    read.map_err(|error| CertError::new(path, error.to_string()))?;
    if content.len() as u64 > MAX_FILE {
        return Err(CertError::new(path, format!("longer than {MAX_FILE} bytes")));
    }
    Ok(content)
}

/// Warns about a private key that is readable for everybody.
#[cfg(unix)]
pub(crate) fn warn_if_public(key: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(key).map_or(0, |found| found.permissions().mode());
    if mode & 0o004 != 0 {
        tracing::warn!(file = %key.display(), "everybody on this machine may read the private key");
    }
}

#[cfg(not(unix))]
pub(crate) fn warn_if_public(_: &Path) {}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
