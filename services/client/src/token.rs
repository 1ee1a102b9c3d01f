//! A bearer token: given once, or kept in a file that may change while the process runs.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long the content of a file is used before it is read again.
const MAX_AGE: Duration = Duration::from_secs(1);
/// Longest file, in bytes: a header of more is refused by most servers.
const MAX_FILE: u64 = 8 << 10;

/// A bearer token. Clones share it.
#[derive(Clone)]
pub struct Token(Source);

#[derive(Clone)]
enum Source {
    Fixed(Arc<str>),
    File(Arc<TokenFile>),
}

/// The content counts, not the time of modification: a mounted Secret is replaced by exchanging a symbolic link.
struct TokenFile {
    path: PathBuf,
    last: Mutex<LastRead>,
}

struct LastRead {
    token: Arc<str>,
    at: Instant,
    failing: bool,
}

/// Why a token can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file can't be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It holds only white space.
    #[error("the file is empty")]
    Empty,
    /// It can't be sent in a header.
    #[error("a token is one word of visible ASCII characters, at most {MAX_FILE} of them")]
    Invalid,
}

impl Token {
    /// A token that never changes.
    ///
    /// # Errors
    /// [`TokenError`] if it can't be sent in a header.
    pub fn fixed(text: &str) -> Result<Self, TokenError> {
        Ok(Self(Source::Fixed(checked(text)?)))
    }

    /// The token in a file, without surrounding white space. The file is read now and, when the token is used, again
    /// every second. While it can't be read or holds no token, the last one stays in use.
    ///
    /// # Errors
    /// [`TokenError`] if the file holds no token now.
    pub fn in_file(path: &Path) -> Result<Self, TokenError> {
        let last = LastRead { token: read(path)?, at: Instant::now(), failing: false };
        Ok(Self(Source::File(Arc::new(TokenFile { path: path.to_owned(), last: Mutex::new(last) }))))
    }

    /// The token as it is now, for one request.
    pub fn get(&self) -> Arc<str> {
        match &self.0 {
            Source::Fixed(token) => token.clone(),
            Source::File(file) => file.get(Instant::now(), MAX_AGE),
        }
    }

    /// Reads the file again at once, after `refused` was refused. Returns the token if it is another one now.
    pub fn newer_than(&self, refused: &str) -> Option<Arc<str>> {
        match &self.0 {
            Source::Fixed(_) => None,
            Source::File(file) => {
                Some(file.get(Instant::now(), Duration::ZERO)).filter(|token| **token != *refused)
            }
        }
    }
}

impl TokenFile {
    fn get(&self, now: Instant, max_age: Duration) -> Arc<str> {
        let mut last = self.last.lock();
        if now.saturating_duration_since(last.at) < max_age {
            return last.token.clone();
        }
        last.at = now;
        let file = self.path.display();
        match read(&self.path) {
            Ok(token) => {
                if last.failing || token != last.token {
                    tracing::info!(%file, changed = token != last.token, "the token file was read again");
                }
                (last.token, last.failing) = (token, false);
            }
            Err(error) => {
                if !std::mem::replace(&mut last.failing, true) {
                    let error = &error as &dyn Error;
                    tracing::warn!(%file, error, "can't read the token file; the last token stays in use");
                }
            }
        }
        last.token.clone()
    }
}

/// Redacts the token.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

fn read(path: &Path) -> Result<Arc<str>, TokenError> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    checked(&text)
}

fn checked(text: &str) -> Result<Arc<str>, TokenError> {
    match text.trim() {
        "" => Err(TokenError::Empty),
        token if text.len() as u64 <= MAX_FILE && token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(token.into())
        }
        _ => Err(TokenError::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    fn token_file(token: &Token) -> &TokenFile {
        match &token.0 {
            Source::File(file) => file,
            Source::Fixed(_) => panic!("not in a file"),
        }
    }

    #[test]
    fn a_file_is_read_again_by_its_content() {
        let (_folder, path) = file("first\n");
        let token = Token::in_file(&path).unwrap();
        let file = token_file(&token);
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert_eq!(token.newer_than("first"), None, "unchanged");
        std::fs::write(&path, "second").unwrap();
        assert_eq!(&*file.get(Instant::now(), MAX_AGE), "first", "read a moment ago");
        assert_eq!(token.newer_than("first").as_deref(), Some("second"), "read again at once");
        assert_eq!(&*file.get(later(2), MAX_AGE), "second");
        for invalid in ["", " \n", "two words", "a\0b", "schlüssel", &"x".repeat(10_000)] {
            std::fs::write(&path, invalid).unwrap();
            assert_eq!(&*file.get(later(10), MAX_AGE), "second", "{invalid:?}");
            file.last.lock().at = Instant::now();
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(&*file.get(later(20), MAX_AGE), "second", "the file is gone");
        std::fs::write(&path, "third").unwrap();
        assert_eq!(&*file.get(later(30), MAX_AGE), "third");
    }

    /// As the kubelet replaces a Secret: `token` → `..data/token`, `..data` → a folder by date.
    #[test]
    fn an_exchanged_link_is_followed() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, content) in [("v1", "first"), ("v2", "second")] {
            std::fs::create_dir(at(version)).unwrap();
            std::fs::write(at(version).join("token"), content).unwrap();
        }
        symlink("v1", at("..data")).unwrap();
        symlink("..data/token", at("token")).unwrap();
        let token = Token::in_file(&at("token")).unwrap();
        assert_eq!(&*token.get(), "first");
        symlink("v2", at("..new")).unwrap();
        std::fs::rename(at("..new"), at("..data")).unwrap();
        assert_eq!(&*token_file(&token).get(Instant::now() + MAX_AGE, MAX_AGE), "second");
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_refused() {
        assert_eq!(&*Token::fixed(" hush\n").unwrap().get(), "hush");
        for invalid in ["", "two words", "a\nb", "schlüssel"] {
            assert!(Token::fixed(invalid).is_err(), "{invalid:?}");
        }
        let (_folder, path) = file("\n");
        assert_eq!(Token::in_file(&path).unwrap_err().to_string(), "the file is empty");
        assert_eq!(format!("{:?}", Token::fixed("hush").unwrap()), "[redacted]");
    }
}
