//! The appender on a disk that fails on purpose: whatever it says is stored, is there after a crash.

use proptest::prelude::*;

use super::*;

/// A disk with a script of failures. `durable` is what a power cut leaves at the least.
#[derive(Default)]
struct Faulty {
    content: Vec<u8>,
    durable: Vec<u8>,
    faults: Vec<Fault>,
    step: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Takes this many bytes at most.
    Short(usize),
    Fail,
}

impl Faulty {
    fn next(&mut self) -> Fault {
        self.step += 1;
        self.faults.get(self.step - 1).copied().unwrap_or(Fault::None)
    }
}

impl Disk for &mut Faulty {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.len() as u64)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = match self.next() {
            Fault::None => bytes.len(),
            Fault::Short(len) => len.clamp(1, bytes.len()),
            Fault::Fail => return Err(io::ErrorKind::StorageFull.into()),
        };
        self.content.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.next() == Fault::Fail {
            return Err(io::Error::other("EIO"));
        }
        self.durable.clone_from(&self.content);
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        if self.next() == Fault::Fail {
            return Err(io::Error::other("EIO"));
        }
        // What is cut off may be gone at once, and nothing brings it back.
        for copy in [&mut self.content, &mut self.durable] {
            copy.truncate(usize::try_from(len).unwrap());
        }
        Ok(())
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![4 => Just(Fault::None), 2 => (1_usize..40).prop_map(Fault::Short), 1 => Just(Fault::Fail)]
}

/// Groups of submissions; each submission is one or more lines that nobody else has.
fn groups() -> impl Strategy<Value = Vec<Vec<usize>>> {
    proptest::collection::vec(proptest::collection::vec(1_usize..30, 1..6), 1..8)
}

proptest! {
    #[test]
    fn what_is_said_to_be_stored_is_stored_in_order(
        groups in groups(),
        faults in proptest::collection::vec(fault(), 0..40),
        sync in any::<bool>(),
    ) {
        let mut disk = Faulty { faults, ..Faulty::default() };
        let mut expected = Vec::new();
        let mut next = 0_u32;
        let mut appender = Appender::new(&mut disk, 0);
        for group in groups {
            let mut bytes = Vec::new();
            let mut cuts = Vec::new();
            for len in group {
                next += 1;
                bytes.extend_from_slice(format!("{next}:{}\n", "x".repeat(len)).as_bytes());
                cuts.push(bytes.len());
            }
            let committed = appender.commit(&bytes, &cuts, sync);
            prop_assert!(committed.whole == cuts.len() || committed.failure.is_some());
            if committed.whole > 0 {
                expected.extend_from_slice(&bytes[..cuts[committed.whole - 1]]);
            }
            prop_assert_eq!(appender.len(), expected.len() as u64);
            if sync {
                // A power cut now: what was synced is there, and it holds everything that was said.
                prop_assert!(appender.disk.durable.starts_with(&expected));
            }
            prop_assert!(appender.disk.content.starts_with(&expected));
        }
        // Once the disk is well again, the leftovers of failures go away.
        appender.disk.faults.clear();
        appender.sync().unwrap();
        prop_assert_eq!(&disk.content, &expected);
    }
}

#[test]
fn a_full_disk_fails_the_first_that_does_not_fit() {
    let mut disk = Faulty { faults: vec![Fault::Short(7), Fault::Fail], ..Faulty::default() };
    let mut appender = Appender::new(&mut disk, 0);
    let committed = appender.commit(b"one\ntwo\nthree\n", &[4, 8, 14], false);
    assert_eq!(committed.whole, 1);
    assert!(
        matches!(committed.failure, Some(Failure::Write(error)) if error.kind() == io::ErrorKind::StorageFull)
    );
    assert_eq!(disk.content, b"one\n");
}

#[test]
fn a_failed_sync_fails_all_and_leaves_nothing() {
    let mut disk = Faulty { faults: vec![Fault::None, Fault::Fail], ..Faulty::default() };
    let mut appender = Appender::new(&mut disk, 0);
    let committed = appender.commit(b"one\ntwo\n", &[4, 8], true);
    assert_eq!(committed.whole, 0);
    assert!(matches!(committed.failure, Some(Failure::All(_))));
    assert_eq!(disk.content, b"");
}
