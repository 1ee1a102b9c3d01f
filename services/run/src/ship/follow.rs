//! Following a file across rotation and truncation.

use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

/// A file that grows.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    open: Option<Open>,
    /// Whether what a file contains when it is opened is read. For the first one that is a choice.
    from_start: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    identity: (u64, u64),
    at: u64,
}

impl Follower {
    pub(super) fn new(path: &Path, from_start: bool) -> Self {
        Self { path: path.to_owned(), open: None, from_start }
    }

    /// Reads what has been added. 0 if there is nothing new now.
    ///
    /// # Errors
    /// If the file can't be read. One that does not exist has nothing new.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.open.is_none() && !self.reopen().await? {
            return Ok(0);
        }
        let Some(open) = &mut self.open else { return Ok(0) };
        let mut read = open.file.read(buffer).await?;
        if read == 0 {
            if open.file.metadata().await?.len() < open.at {
                // Truncated, as logrotate's copytruncate does.
                open.at = open.file.seek(SeekFrom::Start(0)).await?;
                read = open.file.read(buffer).await?;
            } else if self.is_replaced().await && self.reopen().await? {
                let Some(open) = &mut self.open else { return Ok(0) };
                read = open.file.read(buffer).await?;
            }
        }
        if let Some(open) = &mut self.open {
            open.at += read as u64;
        }
        Ok(read)
    }

    /// Whether the path leads to another file now.
    async fn is_replaced(&self) -> bool {
        let now = tokio::fs::metadata(&self.path).await;
        now.is_ok_and(|now| self.open.as_ref().is_some_and(|open| open.identity != (now.dev(), now.ino())))
    }

    async fn reopen(&mut self) -> io::Result<bool> {
        let mut file = match File::open(&self.path).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.from_start = true; // what it contains when it comes is new
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let metadata = file.metadata().await?;
        let at = if self.from_start { 0 } else { file.seek(SeekFrom::End(0)).await? };
        self.from_start = true;
        self.open = Some(Open { file, identity: (metadata.dev(), metadata.ino()), at });
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn new(follower: &mut Follower) -> String {
        let (mut all, mut buffer) = (Vec::new(), [0; 4]);
        loop {
            match follower.read(&mut buffer).await.unwrap() {
                0 => return String::from_utf8(all).unwrap(),
                read => all.extend_from_slice(&buffer[..read]),
            }
        }
    }

    fn append(path: &Path, text: &str) {
        use std::io::Write as _;
        fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    #[tokio::test]
    async fn a_file_is_followed_across_rotation_and_truncation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        append(&path, "old\n");
        let mut follower = Follower::new(&path, false);
        assert_eq!(new(&mut follower).await, "");
        append(&path, "one\n");
        assert_eq!(new(&mut follower).await, "one\n");
        append(&path, "last of the old file\n");
        fs::rename(&path, dir.path().join("access.log.1")).unwrap();
        append(&path, "first of the new one\n");
        assert_eq!(new(&mut follower).await, "last of the old file\nfirst of the new one\n");
        fs::write(&path, "cut\n").unwrap();
        assert_eq!(new(&mut follower).await, "cut\n");
        fs::remove_file(&path).unwrap();
        assert_eq!(new(&mut follower).await, "");
        append(&path, "again\n");
        assert_eq!(new(&mut follower).await, "again\n");
    }

    #[tokio::test]
    async fn a_file_that_comes_later_is_read_from_its_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("later.log");
        let mut follower = Follower::new(&path, false);
        assert_eq!(new(&mut follower).await, "");
        append(&path, "first\n");
        assert_eq!(new(&mut follower).await, "first\n");
        let mut all = Follower::new(&path, true);
        assert_eq!(new(&mut all).await, "first\n");
    }
}
