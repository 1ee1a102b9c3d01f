//! Why there is no certificate.

use std::error::Error;
use std::path::{Path, PathBuf};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// A file or the folder can't be used.
    #[error("{}: {why}", file.display())]
    File {
        /// Which one.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// The server, or the way to it, has failed.
    #[error("the ACME server can't be used")]
    Server(#[from] instant_acme::Error),
    /// The server offers other challenges only.
    #[error("the ACME server does not offer the challenge {0}")]
    NoChallenge(&'static str),
    /// The server has asked the host, and was not content with the answer.
    #[error("the ACME server could not verify the host: {0}")]
    NotVerified(String),
    /// A key or a request for a certificate can't be made.
    #[error("no key or request for a certificate can be made")]
    Key(#[source] Box<dyn Error + Send + Sync>),
    /// It took too long.
    #[error("the ACME server did not issue a certificate within {0} s")]
    Timeout(u64),
}

impl AcmeError {
    pub(crate) fn file(file: &Path, why: impl ToString) -> Self {
        Self::File { file: file.to_owned(), why: why.to_string() }
    }

    pub(crate) fn key(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Key(Box::new(error))
    }

    /// Whether the server does not know the account.
    pub(crate) fn is_unknown_account(&self) -> bool {
        const UNKNOWN: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
        matches!(self, Self::Server(instant_acme::Error::Api(problem)) if problem.r#type.as_deref() == Some(UNKNOWN))
    }
}
