//! `{slot}` in the file's path: the lowest number from 1 whose file no other process writes.
//!
//! Replicas that share a folder and a configuration (containers on one volume) thus write a file each, and a
//! restarted one continues where an earlier one stopped. The lock decides who has a slot. The kernel releases
//! it with the process, even after `kill -9`.

use std::path::{Path, PathBuf};

use super::recover::{self, OpenError, RecoveredLog};

/// The placeholder for the number.
pub(crate) const SLOT: &str = "{slot}";
/// More replicas than one folder will ever have.
const MAX_SLOTS: u32 = 1024;

/// Opens the file, or the first free one if the path has a `{slot}`.
pub(super) fn open(file: &Path) -> Result<RecoveredLog, OpenError> {
    for slot in 1..MAX_SLOTS {
        let Some(path) = path_of(file, slot) else { break };
        match recover::open(&path) {
            Err(OpenError::InUse(_)) => {}
            opened => return opened,
        }
    }
    recover::open(&path_of(file, MAX_SLOTS).unwrap_or_else(|| file.to_owned()))
}

/// The path of a slot; `None` if the path has no placeholder.
fn path_of(file: &Path, slot: u32) -> Option<PathBuf> {
    let text = file.to_str()?;
    text.contains(SLOT).then(|| text.replace(SLOT, &slot.to_string()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_without_a_slot_is_used_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("services.log");
        let log = open(&file).unwrap();
        assert_eq!(log.names.active(), file);
        assert!(matches!(open(&file), Err(OpenError::InUse(_))));
    }

    #[test]
    fn each_process_takes_the_lowest_free_slot_and_releases_it() {
        let dir = tempfile::tempdir().unwrap();
        let template = dir.path().join("{slot}/services.log");
        let at = |slot: u32| dir.path().join(slot.to_string()).join("services.log");
        let first = open(&template).unwrap();
        let second = open(&template).unwrap();
        let third = open(&template).unwrap();
        let taken = [&first, &second, &third].map(|log| log.names.active());
        assert_eq!(taken, [at(1), at(2), at(3)]);
        drop(second);
        assert_eq!(open(&template).unwrap().names.active(), at(2));
    }
}
