//! Files whose change restarts a program.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use glob::{MatchOptions, Pattern};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Changes within this time are one: editors and builds write several files.
const QUIET: Duration = Duration::from_millis(200);
/// Longest wait for a quiet moment.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Why files can't be watched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    #[error("{0:?} is not a valid glob pattern")]
    Pattern(String, #[source] glob::PatternError),
    #[error("can't watch {}", .0.display())]
    Watch(PathBuf, #[source] notify::Error),
}

/// Watches files.
pub(crate) struct FileWatch {
    changes: mpsc::Receiver<PathBuf>,
    _watcher: RecommendedWatcher,
}

impl FileWatch {
    /// Watches the files that match one of the patterns, which are relative to `dir`.
    pub(crate) fn new(patterns: &[String], dir: &Path) -> Result<Self, WatchError> {
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let globs: Vec<WatchGlob> =
            patterns.iter().map(|text| WatchGlob::new(text, &dir)).collect::<Result<_, _>>()?;
        let roots: Vec<(PathBuf, RecursiveMode)> = globs.iter().map(WatchGlob::root).collect();
        let (changed, changes) = mpsc::channel(64);
        let failed = |error| WatchError::Watch(dir.clone(), error);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            if matches!(event.kind, EventKind::Access(_)) {
                return;
            }
            if let Some(path) = event.paths.iter().find(|path| globs.iter().any(|glob| glob.matches(path))) {
                let _ = changed.try_send(path.clone()); // if it is full, a change is known
            }
        })
        .map_err(failed)?;
        for (root, mode) in roots {
            watcher.watch(&root, mode).map_err(|error| WatchError::Watch(root, error))?;
        }
        Ok(Self { changes, _watcher: watcher })
    }

    /// Waits for a change and then for a quiet moment. Returns the first file that changed.
    pub(crate) async fn changed(&mut self) -> Option<PathBuf> {
        let first = self.changes.recv().await?;
        let end = Instant::now() + MAX_WAIT;
        while let Ok(Some(_)) = timeout_at(end.min(Instant::now() + QUIET), self.changes.recv()).await {}
        Some(first)
    }
}

struct WatchGlob {
    path: PathBuf,
    pattern: Pattern,
}

impl WatchGlob {
    fn new(text: &str, dir: &Path) -> Result<Self, WatchError> {
        let relative: PathBuf =
            Path::new(text).components().filter(|part| *part != Component::CurDir).collect();
        let path = if relative.is_absolute() {
            relative
        } else {
            Path::new(&Pattern::escape(&dir.to_string_lossy())).join(relative)
        };
        let pattern = Pattern::new(&path.to_string_lossy());
        let pattern = pattern.map_err(|error| WatchError::Pattern(text.to_owned(), error))?;
        Ok(Self { path, pattern })
    }

    fn matches(&self, path: &Path) -> bool {
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
        self.pattern.matches_path_with(path, options)
    }

    /// The folder that contains all matches, and whether those are in folders below it.
    fn root(&self) -> (PathBuf, RecursiveMode) {
        let is_literal = |part: &Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
        let mut root: PathBuf = self.path.components().take_while(is_literal).collect();
        if root == self.path {
            root.pop(); // a single file; editors replace it, so its folder is watched
        }
        let below = self.path.components().count() - root.components().count();
        (root, if below > 1 { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_relative_to_the_folder() {
        let glob = |text: &str| WatchGlob::new(text, Path::new("/app")).unwrap();
        let python = glob("./src/**/*.py");
        assert!(python.matches(Path::new("/app/src/a.py")) && python.matches(Path::new("/app/src/b/c.py")));
        assert!(!python.matches(Path::new("/app/a.py")) && !python.matches(Path::new("/app/src/a.pyc")));
        assert_eq!(python.root(), ("/app/src".into(), RecursiveMode::Recursive));
        assert!(!glob("*.py").matches(Path::new("/app/src/a.py")));
        assert_eq!(glob("*.py").root(), ("/app".into(), RecursiveMode::NonRecursive));
        assert_eq!(glob("app.toml").root(), ("/app".into(), RecursiveMode::NonRecursive));
        assert_eq!(glob("/etc/x/*.conf").root(), ("/etc/x".into(), RecursiveMode::NonRecursive));
        assert!(WatchGlob::new("a***", Path::new("/app")).is_err());
    }

    #[tokio::test]
    async fn a_burst_of_changes_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = FileWatch::new(&["*.py".to_owned()], dir.path()).unwrap();
        for n in 0..5 {
            std::fs::write(dir.path().join(format!("{n}.txt")), "x").unwrap();
            std::fs::write(dir.path().join(format!("{n}.py")), "x").unwrap();
        }
        assert_eq!(watch.changed().await.unwrap().file_name().unwrap(), "0.py");
        assert!(watch.changes.try_recv().is_err(), "the others are part of it");
    }
}
