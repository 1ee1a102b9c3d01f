//! The appender on a disk that fails: what it reports as stored is there after a crash.

use proptest::prelude::*;

use super::*;

/// A disk in memory that fails by a script. `durable` is what a power cut leaves for certain.
#[derive(Default)]
struct MemoryDisk {
    content: Vec<u8>,
    durable: Vec<u8>,
    faults: Vec<MemoryFault>,
    step: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum MemoryFault {
    None,
    /// Takes at most this many bytes.
    Short(usize),
    Fail,
}

impl MemoryDisk {
    fn next(&mut self) -> MemoryFault {
        self.step += 1;
        self.faults.get(self.step - 1).copied().unwrap_or(MemoryFault::None)
    }
}

impl Disk for &mut MemoryDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.len() as u64)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = match self.next() {
            MemoryFault::None => bytes.len(),
            MemoryFault::Short(len) => len.clamp(1, bytes.len()),
            MemoryFault::Fail => return Err(io::ErrorKind::StorageFull.into()),
        };
        self.content.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.next() == MemoryFault::Fail {
            return Err(io::Error::other("EIO"));
        }
        self.durable.clone_from(&self.content);
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        if self.next() == MemoryFault::Fail {
            return Err(io::Error::other("EIO"));
        }
        // What is cut off may be gone from the disk at once.
        for copy in [&mut self.content, &mut self.durable] {
            copy.truncate(usize::try_from(len).unwrap());
        }
        Ok(())
    }
}

fn fault() -> impl Strategy<Value = MemoryFault> {
    prop_oneof![4 => Just(MemoryFault::None), 2 => (1_usize..40).prop_map(MemoryFault::Short), 1 => Just(MemoryFault::Fail)]
}

/// Groups of submissions, by length.
fn groups() -> impl Strategy<Value = Vec<Vec<usize>>> {
    proptest::collection::vec(proptest::collection::vec(1_usize..30, 1..6), 1..8)
}

proptest! {
    #[test]
    fn what_is_reported_as_stored_is_stored_in_order(
        groups in groups(),
        faults in proptest::collection::vec(fault(), 0..40),
        sync in any::<bool>(),
    ) {
        let mut disk = MemoryDisk { faults, ..MemoryDisk::default() };
        let mut expected = Vec::new();
        let mut next = 0_u32;
        let mut appender = Appender::new(&mut disk, 0);
        for group in groups {
            let mut bytes = Vec::new();
            let mut ends = Vec::new();
            for len in group {
                next += 1;
                bytes.extend_from_slice(format!("{next}:{}\n", "x".repeat(len)).as_bytes());
                ends.push(bytes.len());
            }
            let outcome = appender.commit(&bytes, &ends, sync);
            prop_assert!(outcome.stored == ends.len() || outcome.failure.is_some());
            if outcome.stored > 0 {
                expected.extend_from_slice(&bytes[..ends[outcome.stored - 1]]);
            }
            prop_assert_eq!(appender.len(), expected.len() as u64);
            if sync {
                // A power cut now would leave everything that was acknowledged.
                prop_assert!(appender.disk.durable.starts_with(&expected));
            }
            prop_assert!(appender.disk.content.starts_with(&expected));
        }
        // Once the disk works again, the leftovers of failures go away.
        appender.disk.faults.clear();
        appender.sync().unwrap();
        prop_assert_eq!(&disk.content, &expected);
    }
}

#[test]
fn a_full_disk_fails_the_first_submission_that_does_not_fit() {
    let mut disk =
        MemoryDisk { faults: vec![MemoryFault::Short(7), MemoryFault::Fail], ..MemoryDisk::default() };
    let mut appender = Appender::new(&mut disk, 0);
    let outcome = appender.commit(b"one\ntwo\nthree\n", &[4, 8, 14], false);
    assert_eq!(outcome.stored, 1);
    assert!(
        matches!(outcome.failure, Some(CommitFailure::Write(error)) if error.kind() == io::ErrorKind::StorageFull)
    );
    assert_eq!(disk.content, b"one\n");
}

#[test]
fn a_failed_sync_fails_the_group_and_leaves_nothing() {
    let mut disk = MemoryDisk { faults: vec![MemoryFault::None, MemoryFault::Fail], ..MemoryDisk::default() };
    let mut appender = Appender::new(&mut disk, 0);
    let outcome = appender.commit(b"one\ntwo\n", &[4, 8], true);
    assert_eq!(outcome.stored, 0);
    assert!(matches!(outcome.failure, Some(CommitFailure::All(_))));
    assert_eq!(disk.content, b"");
}
