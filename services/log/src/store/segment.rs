//! Segments on disk: their names, and the listing at the start.
//!
//! The active segment has the configured name (`services.log`). Closed ones lie beside it as
//! `services-FIRSTSEQ-DATE.log`, or `….log.zst` once compressed. FIRSTSEQ has 16 digits, so that names sort
//! in the order of the entries, whatever the clock did.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;

/// Extension of compressed segments.
pub(crate) const ZST: &str = "zst";

/// A closed segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Sequence number of its first entry.
    pub(crate) first_seq: u64,
    pub(crate) path: PathBuf,
    /// Size of the file, in bytes.
    pub(crate) bytes: u64,
    /// Time of the last write.
    pub(crate) modified: SystemTime,
}

impl Segment {
    pub(crate) fn compressed(&self) -> bool {
        self.path.extension().is_some_and(|ext| ext == ZST)
    }

    /// Where the compressed copy of a plain segment lies.
    pub(super) fn compressed_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".");
        path.push(ZST);
        path.into()
    }
}

/// The file names that belong to one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentNames {
    dir: PathBuf,
    stem: String,
    /// With its dot; may be empty.
    ext: String,
}

impl SegmentNames {
    /// The names around an active segment; `None` if `file` does not end in a file name.
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

    /// The active segment.
    pub(crate) fn active(&self) -> PathBuf {
        self.dir.join(format!("{}{}", self.stem, self.ext))
    }

    /// The lock file, locked by the one process that writes.
    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join(format!(".{}{}.lock", self.stem, self.ext))
    }

    /// The next active segment until the rotation is complete.
    pub(crate) fn next(&self) -> PathBuf {
        self.dir.join(format!(".{}{}.next", self.stem, self.ext))
    }

    /// A closed segment.
    pub(crate) fn closed(&self, first_seq: u64, at: Timestamp) -> PathBuf {
        let date = at.strftime("%Y%m%dT%H%M%SZ");
        self.dir.join(format!("{}-{first_seq:016}-{date}{}", self.stem, self.ext))
    }

    /// Whether `name` is an unfinished compressed copy.
    fn is_temp(&self, name: &str) -> bool {
        let segment = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp"));
        segment.is_some_and(|name| self.first_seq(name).is_some())
    }

    /// The first sequence number in a closed segment's name; `None` for any other file.
    fn first_seq(&self, name: &str) -> Option<u64> {
        let name = name.strip_suffix(".zst").unwrap_or(name);
        let middle = name.strip_prefix(&self.stem)?.strip_prefix('-')?.strip_suffix(&self.ext)?;
        let (seq, date) = middle.split_once('-')?;
        let dated = date.len() == 16 && date.ends_with('Z') && date.as_bytes()[8] == b'T';
        let digits = seq.len() >= 16 && seq.bytes().all(|b| b.is_ascii_digit());
        if dated && digits { seq.parse().ok() } else { None }
    }
}

/// Lists the closed segments, oldest first, and cleans up after a crash: it removes unfinished compressed
/// copies, and originals whose copy is complete. Only for the start, while nothing else works on the files.
pub(crate) fn list(names: &SegmentNames) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(names.dir())? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| names.is_temp(name)) {
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
    let mut segments: Vec<Segment> = Vec::with_capacity(found.len());
    for segment in found {
        if let Some(last) = segments.last()
            && segment.compressed()
            && segment.path == last.compressed_path()
        {
            std::fs::remove_file(&last.path)?;
            segments.pop();
        }
        segments.push(segment);
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_back_and_other_files_are_ignored() {
        let names = SegmentNames::new(Path::new("/var/log/services.log")).unwrap();
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
        assert_eq!(SegmentNames::new(Path::new("plain")).unwrap().active(), Path::new("./plain"));
    }

    #[test]
    fn the_listing_cleans_up_after_a_crash_during_compression() {
        let dir = tempfile::tempdir().unwrap();
        let names = SegmentNames::new(&dir.path().join("services.log")).unwrap();
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
}
