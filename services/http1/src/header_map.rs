//! Header maps that are used again. A map takes two allocations, one of them larger than an allocator has at hand, and
//! each request needs one map for its own fields and one for its response's.

use std::cell::RefCell;

use http::HeaderMap;

/// Spare maps per thread (some hundred KB of them), and the largest capacity that one may have.
const MAX_SPARE: usize = 256;
const MAX_CAPACITY: usize = 64;

thread_local! {
    /// Empty maps, the most recently used at the end.
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for `fields`.
pub fn take(fields: usize) -> HeaderMap {
    let mut map = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    map.reserve(fields);
    map
}

/// Returns a map that is no longer needed to this thread's spare ones.
pub fn recycle(mut map: HeaderMap) {
    // Values of repeated fields take memory that shows only in their number.
    if (1..=MAX_CAPACITY).contains(&map.capacity()) && map.len() <= MAX_CAPACITY {
        map.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MAX_SPARE {
                spare.push(map);
            }
        });
    }
}
