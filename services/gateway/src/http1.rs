//! What an HTTP/1 connection is made of on either side of the gateway: bodies off the wire ([`decoder`], [`chunks`]) and
//! onto it ([`encoder`]), what waits to be written ([`outbox`]), and what a worker's connections take turns to use: a
//! buffer to read through ([`scratch`]) and header maps ([`fields`]).
//!
//! Heads are not here, but for where one ends: a client's is judged ([`crate::edge::framing`]), an instance's is trusted
//! with its own reply and nothing else ([`crate::upstream::h1`]).

use memchr::memchr_iter;

mod chunks;
pub(crate) mod decoder;
pub(crate) mod encoder;
pub(crate) mod fields;
pub(crate) mod outbox;
pub(crate) mod scratch;

/// No more of a body is fetched while this much waits to be written.
pub(crate) const QUEUED: usize = 64 << 10;

/// Where in `new`, which follows `old`, an empty line ends.
pub(crate) fn end_of_head(old: &[u8], new: &[u8]) -> Option<usize> {
    let before = |at: usize, back: usize| match at.checked_sub(back) {
        Some(i) => new.get(i).copied(),
        None => (old.len() + at).checked_sub(back).and_then(|i| old.get(i)).copied(),
    };
    memchr_iter(b'\n', new).find_map(|at| {
        let empty =
            before(at, 1) == Some(b'\n') || (before(at, 1) == Some(b'\r') && before(at, 2) == Some(b'\n'));
        empty.then_some(at + 1)
    })
}

/// A length as `Content-Length` says it: digits and nothing else.
pub(crate) fn length(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests;
