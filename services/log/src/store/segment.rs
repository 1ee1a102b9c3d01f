//! Names of segments, and which of them to drop. Pure but for [`list`].
//!
//! The file being written has the configured name (`services.log`); closed ones lie beside it as
//! `services-FIRSTSEQ-DATE.log`, or `….log.zst` once compressed. The first number has 16 digits, so that a listing
//! by name is in order, whatever the clock did.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// A closed segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Number of its first entry.
    pub(crate) first_seq: u64,
    pub(crate) path: PathBuf,
    /// In bytes, as stored.
    pub(crate) bytes: u64,
    /// When it was last written.
    pub(crate) modified: SystemTime,
}

impl Segment {
    pub(crate) fn compressed(&self) -> bool {
        self.path.extension().is_some_and(|ext| ext == ZST)
    }
}

/// Extension of compressed segments.
pub(crate) const ZST: &str = "zst";

/// The names that belong to one log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    dir: PathBuf,
    stem: String,
    /// With its dot; may be empty.
    ext: String,
}

impl Names {
    /// Of the file being written.
    pub(crate) fn new(file: &Path) -> Option<Self> {
        let stem = file.file_stem()?.to_str()?.to_owned();
        let ext = match file.extension() {
            Some(ext) => format!(".{}", ext.to_str()?),
            None => String::new(),
        };
        let dir = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Some(Self { dir, stem, ext })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn current(&self) -> PathBuf {
        self.dir.join(format!("{}{}", self.stem, self.ext))
    }

    /// Held by the one process that writes.
    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join(format!(".{}{}.lock", self.stem, self.ext))
    }

    /// The next file while it is being made.
    pub(crate) fn next(&self) -> PathBuf {
        self.dir.join(format!(".{}{}.next", self.stem, self.ext))
    }

    pub(crate) fn closed(&self, first_seq: u64, at: Timestamp) -> PathBuf {
        let date = at.strftime("%Y%m%dT%H%M%SZ");
        self.dir.join(format!("{}-{first_seq:016}-{date}{}", self.stem, self.ext))
    }

    /// A compressed copy that a crash left unfinished.
    fn unfinished(&self, name: &str) -> bool {
        let segment = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp"));
        segment.is_some_and(|name| self.first_seq(name).is_some())
    }

    /// The first number in a closed segment's name; `None` for all other files.
    fn first_seq(&self, name: &str) -> Option<u64> {
        let name = name.strip_suffix(".zst").unwrap_or(name);
        let middle = name.strip_prefix(&self.stem)?.strip_prefix('-')?.strip_suffix(&self.ext)?;
        let (seq, date) = middle.split_once('-')?;
        let dated = date.len() == 16 && date.ends_with('Z') && date.as_bytes()[8] == b'T';
        let digits = seq.len() >= 16 && seq.bytes().all(|b| b.is_ascii_digit());
        if dated && digits { seq.parse().ok() } else { None }
    }
}

/// Closed segments in order. Where a crash left both a segment and its compressed copy, which is whole by then,
/// the copy counts and the other is removed. For the start only: it also removes unfinished copies.
pub(crate) fn list(names: &Names) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(names.dir())? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| names.unfinished(name)) {
            std::fs::remove_file(entry.path())?;
            continue;
        }
        let Some(first_seq) = entry.file_name().to_str().and_then(|name| names.first_seq(name)) else {
            continue;
        };
        let meta = entry.metadata()?;
        if meta.is_file() {
            let modified = meta.modified()?;
            found.push(Segment { first_seq, path: entry.path(), bytes: meta.len(), modified });
        }
    }
    // A plain segment sorts before its compressed copy.
    found.sort_by(|a, b| (a.first_seq, &a.path).cmp(&(b.first_seq, &b.path)));
    let mut kept: Vec<Segment> = Vec::with_capacity(found.len());
    for segment in found {
        if let Some(last) = kept.last()
            && segment.compressed()
            && segment.path.with_extension("") == last.path
        {
            std::fs::remove_file(&last.path)?;
            kept.pop();
        }
        kept.push(segment);
    }
    Ok(kept)
}

/// How many of the oldest segments to drop.
///
/// `current` is the length of the file being written. The newest closed segment stays while that file is empty:
/// it knows the last number given out.
pub(crate) fn expired(
    closed: &[Segment],
    current: u64,
    now: SystemTime,
    max_age: Option<Duration>,
    max_bytes: Option<u64>,
) -> usize {
    let mut total = current + closed.iter().map(|segment| segment.bytes).sum::<u64>();
    let droppable = if current == 0 { closed.len().saturating_sub(1) } else { closed.len() };
    let mut drop = 0;
    for segment in &closed[..droppable] {
        // A time in the future is a clock's mistake, not age.
        let age = now.duration_since(segment.modified).unwrap_or_default();
        let too_old = max_age.is_some_and(|max| age > max);
        let too_much = max_bytes.is_some_and(|max| total > max);
        if !too_old && !too_much {
            break;
        }
        total -= segment.bytes;
        drop += 1;
    }
    drop
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(first_seq: u64, bytes: u64, age: u64) -> Segment {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - age);
        Segment { first_seq, path: format!("s-{first_seq}").into(), bytes, modified }
    }

    #[test]
    fn names_are_read_back_and_others_are_left_alone() {
        let names = Names::new(Path::new("/var/log/services.log")).unwrap();
        let path = names.closed(42, "2026-11-23T08:07:11Z".parse().unwrap());
        assert_eq!(path, Path::new("/var/log/services-0000000000000042-20261123T080711Z.log"));
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(names.first_seq(name), Some(42));
        assert_eq!(names.first_seq(&format!("{name}.zst")), Some(42));
        for other in
            ["services.log", "services-old.log", "services-1-20261123T080711Z.log", "services-.log", "x"]
        {
            assert_eq!(names.first_seq(other), None, "{other}");
        }
        assert_eq!(Names::new(Path::new("plain")).unwrap().current(), Path::new("./plain"));
    }

    #[test]
    fn what_a_crash_left_of_compressing_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        let names = Names::new(&dir.path().join("services.log")).unwrap();
        let at = "2026-11-23T08:07:11Z".parse().unwrap();
        let (one, two) = (names.closed(1, at), names.closed(2, at));
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let copy = dir.path().join(name(&one) + ".zst");
        let unfinished = dir.path().join(format!(".{}.tmp", name(&two)));
        let other = dir.path().join(".other.tmp");
        for path in [&one, &two, &copy, &unfinished, &other] {
            std::fs::write(path, "x").unwrap();
        }
        let paths: Vec<_> = list(&names).unwrap().into_iter().map(|segment| segment.path).collect();
        assert_eq!(paths, [copy, two]);
        assert!(!one.exists() && !unfinished.exists() && other.exists());
    }

    #[test]
    fn the_oldest_go_first_by_age_or_by_total() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let closed = [segment(1, 100, 300), segment(2, 100, 200), segment(3, 100, 100)];
        let by_age = |secs| expired(&closed, 1, now, Some(Duration::from_secs(secs)), None);
        assert_eq!((by_age(400), by_age(250), by_age(50)), (0, 1, 3));
        let by_total = |max| expired(&closed, 1, now, None, Some(max));
        assert_eq!((by_total(301), by_total(300), by_total(150), by_total(0)), (0, 1, 2, 3));
        assert_eq!(expired(&closed, 0, now, None, Some(0)), 2, "the newest knows the last number");
        assert_eq!(expired(&closed, 1, now - Duration::from_secs(999_999), Some(Duration::ZERO), None), 0);
    }
}
