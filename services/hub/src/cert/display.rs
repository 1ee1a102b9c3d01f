//! How times and paths are shown. Pure.

use std::path::Path;

use jiff::Timestamp;

use crate::text::one_line;

/// Longest path that is shown, in characters.
const MAX_PATH: usize = 500;

/// A time as a day, and how far it is.
pub(super) fn day(at: Timestamp, now: Timestamp) -> String {
    let seconds = at.duration_since(now).as_secs();
    let (past, seconds) = (seconds < 0, seconds.unsigned_abs());
    let of = |unit: u64| (seconds + unit / 2) / unit;
    let far = match seconds {
        0..100 => format!("{seconds} s"),
        100..6000 => format!("{} min", of(60)),
        6000..172_800 => format!("{} h", of(3600)),
        _ => format!("{} days", of(86_400)),
    };
    let at = if seconds < 172_800 { at.to_string() } else { at.strftime("%Y-%m-%d").to_string() };
    if past { format!("{at} ({far} ago)") } else { format!("{at} (in {far})") }
}

/// A path as it is shown.
pub(super) fn shown(path: &Path) -> String {
    one_line(&path.display().to_string(), MAX_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_with_their_distance() {
        let now: Timestamp = "2026-11-26T19:50:00.7Z".parse().unwrap();
        for (at, shown) in [
            ("2026-11-26T19:50:30Z", "2026-11-26T19:50:30Z (in 29 s)"),
            ("2026-11-26T19:45:00Z", "2026-11-26T19:45:00Z (5 min ago)"),
            ("2026-11-27T19:50:00Z", "2026-11-27T19:50:00Z (in 24 h)"),
            ("2027-02-24T19:50:00Z", "2027-02-24 (in 90 days)"),
            ("2020-01-01T00:00:00Z", "2020-01-01 (2522 days ago)"),
        ] {
            assert_eq!(day(at.parse().unwrap(), now), shown);
        }
    }
}
