//! A tokens file, read again when its content changes.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::token_set::{InvalidTokens, TokenSet};

/// How long the content is used before the file is read again: as long as a revoked token lasts.
pub(super) const MAX_AGE: Duration = Duration::from_secs(2);
/// The same for a token that is unknown: it may have been made a moment ago.
pub(super) const MAX_AGE_UNKNOWN: Duration = Duration::from_millis(250);
/// Longest file, in bytes: some 10,000 tokens.
const MAX_FILE: u64 = 1 << 20;

/// The tokens in a file. The content counts, not the time of modification: a mounted Secret is replaced by exchanging a
/// symbolic link. While the file can't be used, the tokens that were read last stay in use.
#[derive(Debug)]
pub(super) struct TokensFile {
    path: PathBuf,
    last: Mutex<LastRead>,
}

#[derive(Debug)]
struct LastRead {
    text: String,
    tokens: Arc<TokenSet>,
    at: Instant,
    failing: bool,
}

/// Why the tokens can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokensFileError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error("longer than {MAX_FILE} bytes")]
    TooLong,
    #[error(transparent)]
    Invalid(#[from] InvalidTokens),
}

impl TokensFile {
    /// Reads the file for the first time.
    pub(super) fn open(path: &Path) -> Result<Self, TokensFileError> {
        let text = read(path)?;
        let tokens = Arc::new(TokenSet::parse(&text)?);
        let last = LastRead { text, tokens, at: Instant::now(), failing: false };
        Ok(Self { path: path.to_owned(), last: Mutex::new(last) })
    }

    /// The tokens at this time; the file is read again if that was done `max_age` ago.
    pub(super) fn tokens(&self, now: Instant, max_age: Duration) -> Arc<TokenSet> {
        let mut last = self.last.lock();
        if now.saturating_duration_since(last.at) < max_age {
            return last.tokens.clone();
        }
        last.at = now;
        let file = self.path.display();
        let fresh = read(&self.path).and_then(|text| {
            if text == last.text {
                return Ok(None);
            }
            Ok(Some((Arc::new(TokenSet::parse(&text)?), text)))
        });
        match fresh {
            Ok(Some((tokens, text))) => {
                tracing::info!(%file, tokens = tokens.len(), "the tokens file was read again");
                (last.tokens, last.text, last.failing) = (tokens, text, false);
            }
            Ok(None) => last.failing = false,
            Err(error) => {
                if !std::mem::replace(&mut last.failing, true) {
                    let error = &error as &dyn Error;
                    tracing::warn!(%file, error, "can't use the tokens file; the last tokens stay in use");
                }
            }
        }
        last.tokens.clone()
    }

    /// Whether the last attempt to read the file failed.
    pub(super) fn is_failing(&self) -> bool {
        self.last.lock().failing
    }
}

fn read(path: &Path) -> Result<String, TokensFileError> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE { Err(TokensFileError::TooLong) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::super::token_set::{hash_of, random_token};
    use super::*;
    use crate::rights::{Role, TokenEntry};

    fn line(name: &str, token: &str) -> String {
        let entry = TokenEntry {
            name: name.into(),
            role: Role::Reader,
            hosts: Vec::new(),
            expires: None,
            hash: hash_of(token),
        };
        format!("{entry}\n")
    }

    #[test]
    fn a_change_counts_within_seconds_and_a_bad_one_never() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let (a, b) = (random_token(), random_token());
        std::fs::write(&path, line("a", &a)).unwrap();
        let file = TokensFile::open(&path).unwrap();
        let start = Instant::now();
        let knows = |token: &str, seconds| {
            file.tokens(start + Duration::from_secs(seconds), MAX_AGE).find(token.as_bytes()).is_some()
        };
        assert!(knows(&a, 1) && !knows(&b, 1));
        std::fs::write(&path, line("b", &b)).unwrap();
        assert!(!knows(&a, 10) && knows(&b, 10), "a is revoked");
        for invalid in ["a reader", &line("b", &a).repeat(2), &"#".repeat(2 << 20)] {
            std::fs::write(&path, invalid).unwrap();
            file.last.lock().at = start;
            assert!(knows(&b, 20) && file.is_failing());
        }
        std::fs::remove_file(&path).unwrap();
        assert!(knows(&b, 30) && file.is_failing());
        std::fs::write(&path, line("b", &b)).unwrap();
        assert!(knows(&b, 40) && !file.is_failing());
        std::fs::write(&path, "").unwrap();
        assert!(!knows(&b, 50), "an empty file is one without tokens, not one to ignore");
    }
}
