//! One number per visit: taken and counted in one step, so that no two visits get the same.
//!
//! With a file, numbers are reserved in blocks: the file holds the last number that may be given out, and is on the
//! disk before the first number of a block is. So a number given out is never given again, whatever happens, and
//! the disk is asked once per block. The price: a crash leaves a gap of at most a block. A clean stop leaves none.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Mutex;

use self::file::Reserve;

mod file;

/// Numbers reserved at a time.
pub const BLOCK: u64 = 1_000;

/// Why the state file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process counts in it.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// It holds something else. Going on from 1 would give out numbers twice.
    #[error("{} holds no count; mend it or remove it", .0.display())]
    Unreadable(PathBuf),
    /// The file system refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file concerned.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// Gives out numbers. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Counter {
    count: Arc<Mutex<Count>>,
}

#[derive(Debug)]
struct Count {
    /// The last number given out.
    last: u64,
    /// Numbers up to this one may be given out.
    reserved: u64,
    reserve: Option<Arc<Reserve>>,
}

impl Counter {
    /// Starts at 1, and forgets.
    pub fn in_memory() -> Self {
        Self::from(Count { last: 0, reserved: u64::MAX, reserve: None })
    }

    /// Goes on where the file says. Blocks on the disk.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn in_file(path: &Path) -> Result<Self, StateError> {
        let (reserve, last) = Reserve::open(path)?;
        Ok(Self::from(Count { last, reserved: last, reserve: Some(Arc::new(reserve)) }))
    }

    /// The next number.
    ///
    /// # Errors
    /// Where the next block can't be reserved; then no number is given out.
    pub async fn next(&self) -> io::Result<u64> {
        let mut count = self.count.lock().await;
        if count.last == count.reserved {
            let up_to = count.reserved + BLOCK;
            count.save(up_to).await?;
            count.reserved = up_to;
        }
        count.last += 1;
        Ok(count.last)
    }

    /// The last number given out.
    pub async fn last(&self) -> u64 {
        self.count.lock().await.last
    }

    /// Gives back what is reserved and not given out, so that a restart goes on without a gap. Numbers that are
    /// taken after this are reserved anew.
    ///
    /// # Errors
    /// Where the file can't be written; then a restart leaves a gap.
    pub async fn settle(&self) -> io::Result<()> {
        let mut count = self.count.lock().await;
        let last = count.last;
        count.save(last).await?;
        if count.reserve.is_some() {
            count.reserved = last;
        }
        Ok(())
    }
}

impl From<Count> for Counter {
    fn from(count: Count) -> Self {
        Self { count: Arc::new(Mutex::new(count)) }
    }
}

impl Count {
    async fn save(&self, number: u64) -> io::Result<()> {
        let Some(reserve) = self.reserve.clone() else { return Ok(()) };
        tokio::task::spawn_blocking(move || reserve.write(number)).await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_thousand_visitors_at_once_get_a_thousand_numbers() {
        let dir = tempfile::tempdir().unwrap();
        for counter in [Counter::in_memory(), Counter::in_file(&dir.path().join("count")).unwrap()] {
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
    async fn after_a_clean_stop_there_is_no_gap_and_after_a_crash_no_repetition() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("count");
        let counter = Counter::in_file(&path).unwrap();
        assert_eq!(counter.next().await.unwrap(), 1);
        assert_eq!(counter.next().await.unwrap(), 2);
        counter.settle().await.unwrap();
        drop(counter);
        let counter = Counter::in_file(&path).unwrap();
        assert_eq!(counter.next().await.unwrap(), 3);
        drop(counter); // as a crash: nothing is given back
        let counter = Counter::in_file(&path).unwrap();
        assert_eq!(counter.next().await.unwrap(), 2 + BLOCK + 1);
        counter.settle().await.unwrap();
        assert_eq!(counter.next().await.unwrap(), 2 + BLOCK + 2, "a straggler after the settling");
        drop(counter);
        assert!(Counter::in_file(&path).unwrap().next().await.unwrap() > 2 + BLOCK + 2);
    }

    #[tokio::test]
    async fn a_file_that_holds_no_count_is_refused_and_so_is_a_second_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("count");
        for content in ["", "x", "-1", "1.5", "18446744073709551616"] {
            fs::write(&path, content).unwrap();
            assert!(matches!(Counter::in_file(&path), Err(StateError::Unreadable(_))), "{content:?}");
        }
        fs::write(&path, "7\n").unwrap();
        let counter = Counter::in_file(&path).unwrap();
        assert!(matches!(Counter::in_file(&path), Err(StateError::InUse(_))));
        assert_eq!(counter.next().await.unwrap(), 8);
    }

    #[tokio::test]
    async fn where_nothing_can_be_reserved_no_number_is_given_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inner").join("count");
        fs::create_dir(dir.path().join("inner")).unwrap();
        let counter = Counter::in_file(&path).unwrap();
        fs::remove_dir_all(dir.path().join("inner")).unwrap();
        assert!(counter.next().await.is_err());
        assert_eq!(counter.last().await, 0);
        fs::create_dir(dir.path().join("inner")).unwrap();
        assert_eq!(counter.next().await.unwrap(), 1);
    }
}
