//! Retention: removes the oldest closed segments by age and by total size.

use std::io;
use std::time::SystemTime;

use super::files::FileList;
use super::options::FileLimits;
use super::segment::Segment;

/// Removes expired segments. `active_len` is the length of the active segment.
pub(super) fn remove_expired(files: &FileList, limits: &FileLimits, active_len: u64, now: SystemTime) {
    let closed = files.snapshot().closed;
    for segment in &closed[..expired(&closed, limits, active_len, now)] {
        // Off the list first: if it is being compressed, the compressor sees that and removes its copy.
        let Some(segment) = files.remove(segment.first_seq) else { continue };
        let path = segment.path.display();
        match std::fs::remove_file(&segment.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(segment = %path, error, "can't remove an expired segment; retrying in a second");
                files.insert(segment);
                break;
            }
            _ => tracing::info!(segment = %path, bytes = segment.bytes, "removed an expired segment"),
        }
    }
}

/// How many of the oldest segments have expired. While the active segment is empty the newest closed one
/// stays: it has the last sequence number.
fn expired(closed: &[Segment], limits: &FileLimits, active_len: u64, now: SystemTime) -> usize {
    let mut total = active_len + closed.iter().map(|segment| segment.bytes).sum::<u64>();
    let removable = closed.len() - usize::from(active_len == 0 && !closed.is_empty());
    let expired = closed[..removable].iter().take_while(|segment| {
        // A time in the future comes from a wrong clock; it is not age.
        let age = now.duration_since(segment.modified).unwrap_or_default();
        let remove = limits.retain_age.is_some_and(|max| age > max)
            || limits.retain_bytes.is_some_and(|max| total > max);
        total -= segment.bytes;
        remove
    });
    expired.count()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn segment(first_seq: u64, bytes: u64, age: u64) -> Segment {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - age);
        Segment { first_seq, path: format!("s-{first_seq}").into(), bytes, modified }
    }

    #[test]
    fn the_oldest_segments_expire_first_by_age_or_by_total() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let closed = [segment(1, 100, 300), segment(2, 100, 200), segment(3, 100, 100)];
        let age = |secs| FileLimits { retain_age: Some(Duration::from_secs(secs)), ..FileLimits::default() };
        let total = |max| FileLimits { retain_bytes: Some(max), ..FileLimits::default() };
        let by_age = |secs| expired(&closed, &age(secs), 1, now);
        assert_eq!((by_age(400), by_age(250), by_age(50)), (0, 1, 3));
        let by_total = |max| expired(&closed, &total(max), 1, now);
        assert_eq!((by_total(301), by_total(300), by_total(150), by_total(0)), (0, 1, 2, 3));
        assert_eq!(expired(&closed, &total(0), 0, now), 2, "the newest has the last sequence number");
        assert_eq!(expired(&closed, &age(0), 1, now - Duration::from_secs(999_999)), 0);
    }
}
