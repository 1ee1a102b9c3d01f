//! `{slot}` in the file's path: the lowest number from 1 whose file no other process writes.
//!
//! So replicas that share a folder and a configuration (containers on one volume) write a file each, and one that is
//! started again goes on where an earlier one stopped. The lock that [`recover`] takes decides, and the kernel gives
//! it back with the process, also after a kill -9.

use std::path::{Path, PathBuf};

use super::recover::{self, OpenError, Recovered};

/// What stands for the number.
pub(crate) const SLOT: &str = "{slot}";
/// More replicas than one folder will ever have.
const SLOTS: u32 = 1024;

/// Opens the file, or where the path has a `{slot}`, the first that is free.
pub(super) fn open(file: &Path) -> Result<Recovered, OpenError> {
    for slot in 1..SLOTS {
        let Some(path) = fill(file, slot) else { break };
        match recover::open(&path) {
            Err(OpenError::InUse(_)) => {}
            opened => return opened,
        }
    }
    recover::open(&fill(file, SLOTS).unwrap_or_else(|| file.to_owned()))
}

/// The path of a slot; `None` where the path has none.
fn fill(file: &Path, slot: u32) -> Option<PathBuf> {
    let text = file.to_str()?;
    text.contains(SLOT).then(|| text.replace(SLOT, &slot.to_string()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_without_a_slot_is_taken_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("services.log");
        let held = open(&file).unwrap();
        assert_eq!(held.names.current(), file);
        assert!(matches!(open(&file), Err(OpenError::InUse(_))));
    }

    #[test]
    fn each_takes_the_lowest_free_slot_and_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let template = dir.path().join("{slot}/services.log");
        let at = |slot: u32| dir.path().join(slot.to_string()).join("services.log");
        let first = open(&template).unwrap();
        let second = open(&template).unwrap();
        let third = open(&template).unwrap();
        let taken = [&first, &second, &third].map(|held| held.names.current());
        assert_eq!(taken, [at(1), at(2), at(3)]);
        drop(second);
        assert_eq!(open(&template).unwrap().names.current(), at(2));
    }
}
