//! What both sides do with header fields. Maps are used again: one takes two allocations, one of them larger than an allocator has at hand, and
//! each request needs a map for its own fields and one for its reply's.

use std::cell::RefCell;

use http::HeaderMap;

/// Maps that one worker thread keeps at most, some hundred KB of them, and the most room that one may have.
const KEPT: usize = 256;
const MAX_ROOM: usize = 64;

thread_local! {
    /// Empty maps, the one used last at the end.
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for `fields`.
pub(crate) fn take(fields: usize) -> HeaderMap {
    let mut map = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    map.reserve(fields);
    map
}

/// Gives a map back that nobody needs any more.
pub(crate) fn put(mut map: HeaderMap) {
    // Values of repeated fields have room of their own, which can't be seen but by their number.
    if (1..=MAX_ROOM).contains(&map.capacity()) && map.len() <= MAX_ROOM {
        map.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < KEPT {
                spare.push(map);
            }
        });
    }
}

/// What a `Connection` field says.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ConnectionOptions {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    /// It says more: it nominates fields, or asks for another protocol.
    pub(crate) other: bool,
}

impl ConnectionOptions {
    pub(crate) fn of(value: &[u8]) -> Self {
        let mut said = Self::default();
        for option in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
            let (close, keep_alive) =
                (option.eq_ignore_ascii_case(b"close"), option.eq_ignore_ascii_case(b"keep-alive"));
            said.close |= close;
            said.keep_alive |= keep_alive;
            said.other |= !close && !keep_alive && !option.is_empty();
        }
        said
    }
}
