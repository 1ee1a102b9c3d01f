//! What an ACME server is answered in clear text to see that a host is ours.

use std::collections::HashMap;

use parking_lot::Mutex;

/// The path below which an ACME server asks, followed by a token (RFC 8555, 8.3).
pub const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

/// Answers to challenges that are open.
#[derive(Debug, Default)]
pub struct Answers {
    by_token: Mutex<HashMap<String, String>>,
}

impl Answers {
    /// The answer to a request for this path, if a challenge is open for it.
    pub fn of(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(CHALLENGE_PATH)?;
        self.by_token.lock().get(token).cloned()
    }

    pub(crate) fn put(&self, token: &str, answer: &str) {
        self.by_token.lock().insert(token.to_owned(), answer.to_owned());
    }

    pub(crate) fn clear(&self) {
        self.by_token.lock().clear();
    }
}
