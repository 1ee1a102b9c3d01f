//! How much memory others can make the registry hold.

use bytesize::ByteSize;
use hubspoke_chassis::memory::MemoryBound;

use crate::config::Settings;
use crate::page::relay::{MAX_BYTES_IN_FLIGHT, MAX_EVENT, MAX_RELAYS, MAX_SOURCES};
use crate::shared::{MAX_VIEWS, UNREAD_VIEWS};

/// Bytes of a service beside its instances: its name, and entries of indexes.
const PER_SERVICE: usize = 512;

/// The memory that members and readers can make the registry hold, without what each of its `connections` costs.
pub fn memory_bounds(settings: &Settings, connections: usize) -> Vec<MemoryBound> {
    let limits = &settings.limits;
    vec![
        MemoryBound::new("registrations, also in lists and in the history", bytes(limits.memory), 1),
        MemoryBound::new("services", PER_SERVICE, limits.services),
        MemoryBound::new("bodies of requests", bytes(limits.body), connections),
        MemoryBound::new("views that are being rendered", UNREAD_VIEWS, MAX_VIEWS),
        MemoryBound::new("views and snapshots that are not read", UNREAD_VIEWS, 1),
        MemoryBound::new("log tails of pages: unread events", MAX_BYTES_IN_FLIGHT, MAX_RELAYS),
        MemoryBound::new("log tails of pages: unfinished events", MAX_EVENT, MAX_RELAYS * MAX_SOURCES),
    ]
}

fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}
