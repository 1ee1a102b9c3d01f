//! Why the store did not take a call.

use super::writer::WriteError;
use crate::catalog::Refusal;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the registry has not read etcd yet")]
    NotRead,
    #[error("others keep changing this registration")]
    Contended,
    #[error("etcd has not taken the change in time")]
    Write(#[source] WriteError),
}

impl From<WriteError> for StoreError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}
