//! How much memory others can make the log service hold.

use hubspoke_chassis::memory::MemoryBound;

use crate::api::admission::PATTERN_MEMORY;
use crate::api::app::{LONG_EVENTS, PARSERS, PATTERN_TAILS, READERS};
use crate::api::body::UNCOUNTED;
use crate::config::{LogConfig, bytes};
use crate::store::{KEY_MEMORY, StoreOptions, WRITE_BYTES};

/// Memory of a follower that reads nothing, in bytes: the events that are rendered, and those that the server has.
const FOLLOWER: usize = 48 << 10;

/// The memory that senders and readers can make the service hold, without what each of its `connections` costs.
pub fn memory_bounds(config: &LogConfig, connections: usize) -> Vec<MemoryBound> {
    let store = StoreOptions::new(&config.file);
    let batch = bytes(config.max_batch);
    vec![
        MemoryBound::new("bodies, as sent and decompressed", bytes(config.max_bodies), 1),
        MemoryBound::new("the first 16 KiB of each body", UNCOUNTED, connections),
        MemoryBound::new("the entries of bodies that are being parsed", batch, PARSERS),
        MemoryBound::new("entries that wait for the writer", bytes(config.queue), 1),
        MemoryBound::new("entries that are being written", WRITE_BYTES + batch, 1),
        MemoryBound::new("recent entries for followers", store.ring_bytes + batch, 1),
        MemoryBound::new("idempotency keys, of members and of others", KEY_MEMORY, 2 * store.dedup_keys),
        MemoryBound::new("queries and merges", READERS, 1),
        MemoryBound::new("followers", FOLLOWER, connections),
        MemoryBound::new("patterns of followers", PATTERN_MEMORY as usize, PATTERN_TAILS),
        MemoryBound::new("long entries for followers", LONG_EVENTS, 1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_can_make_it_hold_is_bounded() {
        let total: usize = memory_bounds(&LogConfig::default(), 0).iter().map(MemoryBound::total).sum();
        assert!(total < 200 << 20, "{} MiB", total >> 20);
    }
}
