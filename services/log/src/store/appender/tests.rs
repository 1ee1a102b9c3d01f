//! The appender on a disk that fails: what it reports as stored is there after a crash.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::store::faulty::{Fault, FaultScript};

struct Fixture {
    appender: Appender,
    script: Arc<FaultScript>,
    file: Arc<File>,
}

fn fixture(faults: Vec<Fault>) -> Fixture {
    let file = Arc::new(tempfile::Builder::new().append(true).tempfile().unwrap().into_file());
    let script = Arc::new(FaultScript::default());
    script.next(faults);
    Fixture { appender: Appender::new(script.disks()(Arc::clone(&file)), 0), script, file }
}

fn content(file: &Arc<File>) -> Vec<u8> {
    let mut content = vec![0; usize::try_from(Disk::len(file).unwrap()).unwrap()];
    file.read_exact_at(&mut content, 0).unwrap();
    content
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![4 => Just(Fault::None), 2 => (1_usize..40).prop_map(Fault::Short), 1 => Just(Fault::Full)]
}

/// Groups of submissions, by length.
fn groups() -> impl Strategy<Value = Vec<Vec<usize>>> {
    proptest::collection::vec(proptest::collection::vec(1_usize..30, 1..6), 1..8)
}

proptest! {
    #[test]
    fn submissions_reported_as_stored_are_stored_in_order(
        groups in groups(),
        faults in proptest::collection::vec(fault(), 0..40),
        sync in any::<bool>(),
    ) {
        let Fixture { mut appender, script, file } = fixture(faults);
        let mut expected = Vec::new();
        let mut next = 0_u32;
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
                prop_assert!(script.durable.lock().starts_with(&expected));
            }
            prop_assert!(content(&file).starts_with(&expected));
        }
        // Once the disk works again, the leftovers of failures go away.
        script.clear();
        appender.sync().unwrap();
        prop_assert_eq!(content(&file), expected);
    }
}

#[test]
fn a_full_disk_fails_the_first_submission_that_does_not_fit() {
    let Fixture { mut appender, file, .. } = fixture(vec![Fault::Short(7), Fault::Full]);
    let CommitOutcome { stored, failure, .. } = appender.commit(b"one\ntwo\nthree\n", &[4, 8, 14], false);
    let full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
    assert!(stored == 1 && matches!(failure, Some(CommitFailure::Write(error)) if full(&error)));
    assert_eq!(content(&file), b"one\n");
}

#[test]
fn a_failed_sync_fails_the_group_and_leaves_nothing() {
    let Fixture { mut appender, file, .. } = fixture(vec![Fault::None, Fault::Fail]);
    let outcome = appender.commit(b"one\ntwo\n", &[4, 8], true);
    assert!(outcome.stored == 0 && matches!(outcome.failure, Some(CommitFailure::All(_))));
    assert_eq!(content(&file), b"");
}
