//! One number per visit, taken in one step, so that no two visits get the same.
//!
//! With a file, numbers are reserved in blocks: the file has the last number that may be given out, and is
//! synced before the first number of a block is used. So no number is given out twice, whatever happens, and
//! the disk is written once per block. The price: a crash leaves a gap of at most a block. A clean stop
//! leaves none.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;

pub use self::file::StateError;
use self::file::StateFile;

mod file;

/// Numbers reserved at a time.
pub const BLOCK: u64 = 1_000;

/// Gives out numbers. Clones share the count.
#[derive(Debug, Clone)]
pub struct VisitCounter {
    count: Arc<Mutex<Count>>,
}

#[derive(Debug)]
struct Count {
    /// The last number given out.
    last: u64,
    /// The last number that may be given out.
    reserved: u64,
    file: Option<Arc<StateFile>>,
}

impl VisitCounter {
    /// Starts at 1; a restart forgets the count.
    pub fn in_memory() -> Self {
        Self::from(Count { last: 0, reserved: u64::MAX, file: None })
    }

    /// Continues after the number in the file. Blocks on the disk.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn in_file(path: &Path) -> Result<Self, StateError> {
        let (file, last) = StateFile::open(path)?;
        Ok(Self::from(Count { last, reserved: last, file: Some(Arc::new(file)) }))
    }

    /// The next number.
    ///
    /// # Errors
    /// If the next block can't be reserved; then no number is given out.
    pub async fn next(&self) -> io::Result<u64> {
        let mut count = self.count.lock().await;
        if count.last == count.reserved {
            let reserved = count.reserved + BLOCK;
            count.save(reserved).await?;
            count.reserved = reserved;
        }
        count.last += 1;
        Ok(count.last)
    }

    /// The last number given out.
    pub async fn last(&self) -> u64 {
        self.count.lock().await.last
    }

    /// Releases reserved numbers that were not given out, so that a restart continues without a gap. A later
    /// call of [`VisitCounter::next`] reserves again.
    ///
    /// # Errors
    /// If the file can't be written; then a restart leaves a gap.
    pub async fn release(&self) -> io::Result<()> {
        let mut count = self.count.lock().await;
        let last = count.last;
        count.save(last).await?;
        if count.file.is_some() {
            count.reserved = last;
        }
        Ok(())
    }
}

impl From<Count> for VisitCounter {
    fn from(count: Count) -> Self {
        Self { count: Arc::new(Mutex::new(count)) }
    }
}

impl Count {
    async fn save(&self, number: u64) -> io::Result<()> {
        let Some(file) = self.file.clone() else { return Ok(()) };
        tokio::task::spawn_blocking(move || file.write(number)).await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn concurrent_visitors_get_different_numbers() {
        let dir = tempfile::tempdir().unwrap();
        for counter in [VisitCounter::in_memory(), VisitCounter::in_file(&dir.path().join("count")).unwrap()]
        {
            let mut visitors = tokio::task::JoinSet::new();
            for _ in 0..2_500 {
                let counter = counter.clone();
                visitors.spawn(async move { counter.next().await.unwrap() });
            }
            let numbers: BTreeSet<u64> = visitors.join_all().await.into_iter().collect();
            assert_eq!(numbers, (1..=2_500).collect());
        }
    }

    #[tokio::test]
    async fn a_clean_stop_leaves_no_gap_and_a_crash_repeats_no_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("count");
        let counter = VisitCounter::in_file(&path).unwrap();
        assert_eq!(counter.next().await.unwrap(), 1);
        assert_eq!(counter.next().await.unwrap(), 2);
        counter.release().await.unwrap();
        drop(counter);
        let counter = VisitCounter::in_file(&path).unwrap();
        assert_eq!(counter.next().await.unwrap(), 3);
        drop(counter); // like a crash: nothing is released
        let counter = VisitCounter::in_file(&path).unwrap();
        assert_eq!(counter.next().await.unwrap(), 2 + BLOCK + 1);
        counter.release().await.unwrap();
        assert_eq!(counter.next().await.unwrap(), 2 + BLOCK + 2, "a straggler after the release");
        drop(counter);
        assert!(VisitCounter::in_file(&path).unwrap().next().await.unwrap() > 2 + BLOCK + 2);
    }

    #[tokio::test]
    async fn an_invalid_file_and_a_second_process_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("count");
        for content in ["", "x", "-1", "1.5", "18446744073709551616"] {
            fs::write(&path, content).unwrap();
            assert!(matches!(VisitCounter::in_file(&path), Err(StateError::Invalid(_))), "{content:?}");
        }
        fs::write(&path, "7\n").unwrap();
        let counter = VisitCounter::in_file(&path).unwrap();
        assert!(matches!(VisitCounter::in_file(&path), Err(StateError::InUse(_))));
        assert_eq!(counter.next().await.unwrap(), 8);
    }

    #[tokio::test]
    async fn without_a_reservation_no_number_is_given_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inner").join("count");
        fs::create_dir(dir.path().join("inner")).unwrap();
        let counter = VisitCounter::in_file(&path).unwrap();
        fs::remove_dir_all(dir.path().join("inner")).unwrap();
        assert!(counter.next().await.is_err());
        assert_eq!(counter.last().await, 0);
        fs::create_dir(dir.path().join("inner")).unwrap();
        assert_eq!(counter.next().await.unwrap(), 1);
    }
}
