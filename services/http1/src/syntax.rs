//! The parts of the grammar that requests and responses share. Pure.

use memchr::memchr_iter;

/// The end of the head within `new`, which follows `old`: the position after the first empty line.
pub(crate) fn end_of_head(old: &[u8], new: &[u8]) -> Option<usize> {
    let before = |at: usize, back: usize| match at.checked_sub(back) {
        Some(i) => new.get(i).copied(),
        None => (old.len() + at).checked_sub(back).and_then(|i| old.get(i)).copied(),
    };
    memchr_iter(b'\n', new).find_map(|at| {
        let is_empty =
            before(at, 1) == Some(b'\n') || (before(at, 1) == Some(b'\r') && before(at, 2) == Some(b'\n'));
        is_empty.then_some(at + 1)
    })
}

/// The value of a `Content-Length` field: digits and nothing else, at most `u64::MAX`.
pub fn content_length(value: &[u8]) -> Option<u64> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| is_number)?.parse().ok()
}

/// The value of a request's `Content-Length` field, without the two greatest values: many servers use those as marks for
/// "chunked" and "until close".
pub fn request_length(value: &[u8]) -> Option<u64> {
    content_length(value).filter(|&length| length < u64::MAX - 1)
}

/// Whether servers that read `_` as `-` (CGI and its descendants) would take this for a framing field.
pub fn is_disguised_framing_field(name: &str) -> bool {
    if !matches!(name.bytes().find(u8::is_ascii_alphanumeric), Some(b'c' | b'C' | b't' | b'T')) {
        return false;
    }
    let letters = || name.bytes().filter(u8::is_ascii_alphanumeric).map(|b| b.to_ascii_lowercase());
    letters().eq(*b"contentlength") || letters().eq(*b"transferencoding")
}

/// The options in a `Connection` field.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ConnectionOptions {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    /// Any other: it nominates a field, or asks for an upgrade.
    pub(crate) other: bool,
}

impl ConnectionOptions {
    pub(crate) fn parse(value: &[u8]) -> Self {
        let mut options = Self::default();
        for option in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
            let (close, keep_alive) =
                (option.eq_ignore_ascii_case(b"close"), option.eq_ignore_ascii_case(b"keep-alive"));
            options.close |= close;
            options.keep_alive |= keep_alive;
            options.other |= !close && !keep_alive && !option.is_empty();
        }
        options
    }
}
