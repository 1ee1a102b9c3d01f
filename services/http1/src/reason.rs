//! Reason phrases other than the standard ones.

use bytes::Bytes;

/// The reason phrase of a status line where it is not the standard one, as an extension of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonPhrase(Bytes);

impl ReasonPhrase {
    /// `None` if the phrase is empty or contains anything but tabs, spaces, visible and non-ASCII characters.
    pub fn new(phrase: Bytes) -> Option<Self> {
        let is_valid = |b: &u8| matches!(b, b'\t' | b' '..=b'~' | 0x80..);
        (!phrase.is_empty() && phrase.iter().all(is_valid)).then_some(Self(phrase))
    }

    /// The phrase.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
