/// A configuration that can't be used. The text is one line that names the file or variable and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// An error with this text, for values that a process checks by itself.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}
