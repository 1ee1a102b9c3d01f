//! Memory that clients can make the gateway take up, bounded in all and not only per connection: unfinished and large
//! request heads, bodies that are kept for a retry, and bytes that wait for a client or an instance to read them.
//!
//! No budget refuses what is small: when it is used up, an honest client still gets through, and only what would take
//! more waits, is not kept, or is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hubspoke_chassis::memory::MemoryBound;
use hubspoke_chassis::server::{self, CONTROL_CONNECTIONS};
use hubspoke_http1::limit_reads;

use crate::config::{GatewayConfig, LimitsConfig};

/// An incomplete head of this size waits once the budget is used up; a complete one of up to this size is not counted.
pub(crate) const SMALL_HEAD: usize = 4 << 10;
/// Memory of a header field besides its bytes: its entry in the map.
const FIELD: usize = 104;

/// How much a client or an instance may send ahead on an HTTP/2 stream.
pub(crate) const STREAM_WINDOW: u32 = 64 << 10;
/// Memory for such streams whose instance does not read them.
const UPLOADS: usize = 12 << 20;

/// Memory for the compression of responses; once it is used up, further ones are sent as they are.
const ENCODERS: usize = 16 << 20;

/// Measured: the gateway with two services, with a catalogue of some instances.
const AT_REST: usize = 24 << 20;
/// Estimated from the peaks of attacks: a connection with a request in flight, its connection to the instance, its head of up to [`SMALL_HEAD`] and
/// what is read ahead for it while memory is short.
const CONNECTION: usize = 7 << 10;
/// Estimated: the library's buffers for frames of 16 KiB in both directions, over and above [`CONNECTION`].
const H2_CONNECTION: usize = 64 << 10;
/// Estimated from the peaks of attacks: a request in flight on a stream, with what is read ahead for it while memory is short.
const STREAM: usize = 5 << 10;

/// Sizes of reads, the largest while less than half of the budget is used, and the least if it is used up.
const READS: [usize; 3] = [64 << 10, 16 << 10, 2 << 10];

/// The budgets.
pub(crate) struct Memory {
    /// Request heads: incomplete ones, and large ones of requests in flight.
    pub(crate) heads: Arc<Budget>,
    /// Bodies that are kept for a retry.
    pub(crate) replay: Arc<Budget>,
    /// Bytes that wait for a client or an instance to read them.
    pub(crate) buffers: Arc<Budget>,
    /// Bytes that HTTP/2 clients may have sent ahead of an instance that does not read them.
    pub(crate) uploads: Arc<Budget>,
    /// Responses that are being compressed.
    pub(crate) encoders: Arc<Budget>,
}

/// A number of bytes, shared by all connections.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

/// A part of a budget; it is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
}

impl Memory {
    pub(crate) fn new(limits: &LimitsConfig) -> Self {
        let budget = |size: bytesize::ByteSize| {
            let limit = usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
            Arc::new(Budget { limit, used: AtomicUsize::new(0) })
        };
        Self {
            heads: budget(limits.head_memory),
            replay: budget(limits.replay_memory),
            buffers: budget(limits.buffer_memory),
            uploads: Arc::new(Budget { limit: UPLOADS, used: AtomicUsize::new(0) }),
            encoders: Arc::new(Budget { limit: ENCODERS, used: AtomicUsize::new(0) }),
        }
    }

    /// Adapts the reads of this thread to what is left. Called on each worker when what waits has changed there, and
    /// now and then, since it changes elsewhere too.
    pub(crate) fn adapt_reads(&self) {
        self.buffers.adapt_reads();
    }
}

impl Budget {
    /// Whether nothing is left.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.used.load(Relaxed) >= self.limit
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Whether only the least is read ahead.
    pub(crate) fn is_short(&self) -> bool {
        self.read_size() == READS[2]
    }

    /// An empty part.
    pub(crate) fn charge(self: &Arc<Self>) -> Charge {
        Charge { budget: self.clone(), bytes: AtomicUsize::new(0) }
    }

    /// Adapts the reads of this thread to what is left.
    fn adapt_reads(&self) {
        limit_reads(self.read_size());
    }

    fn read_size(&self) -> usize {
        let [large, medium, small] = READS;
        match self.used.load(Relaxed) {
            used if used < self.limit / 2 => large,
            used if used < self.limit / 4 * 3 => medium,
            _ => small,
        }
    }

    fn add(&self, bytes: usize) -> usize {
        self.used.fetch_add(bytes, Relaxed)
    }

    fn sub(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

impl Charge {
    /// Makes it so many bytes, even beyond the budget's limit. Returns whether it has changed.
    pub(crate) fn set(&self, bytes: usize) -> bool {
        if self.bytes() == bytes {
            return false;
        }
        let before = self.bytes.swap(bytes, Relaxed);
        match bytes > before {
            true => drop(self.budget.add(bytes - before)),
            false => self.budget.sub(before - bytes),
        }
        true
    }

    /// So many bytes wait for somebody to read them. Adapts the reads of this thread if that has changed.
    pub(crate) fn waits(&self, bytes: usize) {
        if self.set(kept_by(bytes)) {
            self.budget.adapt_reads();
        }
    }

    /// Makes it at least so many bytes, if the budget has them.
    pub(crate) fn raise(&self, bytes: usize) -> bool {
        self.grow(bytes.saturating_sub(self.bytes()))
    }

    /// Makes it so many bytes more, if the budget has them.
    pub(crate) fn grow(&self, bytes: usize) -> bool {
        let granted = self.budget.add(bytes).saturating_add(bytes) <= self.budget.limit;
        if granted {
            self.bytes.fetch_add(bytes, Relaxed);
        } else {
            self.budget.sub(bytes);
        }
        granted
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.sub(*self.bytes.get_mut());
    }
}

/// What TLS adds to a connection: a record that is being received, what is decrypted of it, and what waits for the
/// kernel.
const TLS: usize = 80 << 10;

/// What others can make a gateway with this configuration hold, its control port included. `tests/bench/gateway/attack.py` measures it.
pub fn memory_bounds(config: &GatewayConfig) -> Vec<MemoryBound> {
    let limits = &config.limits;
    let bytes = |size: bytesize::ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
    // Services that register later can't be known: they count as one more.
    let services = config.expose.len() + usize::from(config.exposes_all());
    let in_flight = limits.in_flight.saturating_mul(services);
    let mut bounds = vec![
        MemoryBound::new("the gateway at rest", AT_REST, 1),
        MemoryBound::new("client connection, with a small head or a request", CONNECTION, limits.connections),
        MemoryBound::new("client connection over HTTP/2", H2_CONNECTION, limits.h2_connections),
        MemoryBound::new("request in flight on an HTTP/2 stream", STREAM, in_flight),
        MemoryBound::new("request heads, unfinished or large", bytes(limits.head_memory), 1),
        MemoryBound::new("bodies kept for a retry", bytes(limits.replay_memory), 1),
        MemoryBound::new("bytes that nobody reads", bytes(limits.buffer_memory), 1),
        MemoryBound::new("uploads over HTTP/2 that no instance reads", UPLOADS, 1),
    ];
    if config.services.values().any(|service| service.compress) {
        bounds.push(MemoryBound::new("responses that are being compressed", ENCODERS, 1));
    }
    if config.tls.listen.is_some() {
        bounds.push(MemoryBound::new("what TLS adds to a client connection", TLS, config.tls.connections));
    }
    bounds.extend(server::memory_bounds(CONTROL_CONNECTIONS));
    bounds
}

/// The memory that a parsed head takes up.
pub(crate) fn head_size(headers: &http::HeaderMap, uri: &http::Uri) -> usize {
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    headers.iter().fold(target, |size, (name, value)| size + name.as_str().len() + value.len() + FIELD)
}

/// The memory that waiting bytes may keep: those of a large read keep the whole buffer that it went into, and as much
/// again may have been read that is not encoded yet.
fn kept_by(waiting: usize) -> usize {
    match waiting {
        ..=4096 => waiting,
        4097..=16_384 => 32 << 10,
        _ => 128 << 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limit: usize) -> Arc<Budget> {
        Arc::new(Budget { limit, used: AtomicUsize::new(0) })
    }

    #[test]
    fn a_charge_grows_within_the_budget_and_is_given_back() {
        let budget = budget(100);
        let (first, second) = (budget.charge(), budget.charge());
        assert!(first.grow(60) && !second.grow(50) && second.grow(40));
        assert!(budget.is_exhausted() && !first.grow(1));
        drop(first);
        assert_eq!((budget.used(), budget.is_exhausted()), (40, false));
        assert!(second.set(1000) && !second.set(1000) && second.set(10));
        assert_eq!(budget.used(), 10);
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn reads_become_smaller_as_the_budget_is_used_up() {
        let budget = budget(100);
        let charge = budget.charge();
        for (used, reads) in [(0, READS[0]), (49, READS[0]), (50, READS[1]), (75, READS[2]), (1000, READS[2])]
        {
            charge.set(used);
            assert_eq!(budget.read_size(), reads, "{used}");
        }
    }

    /// The container has 448 MiB, of which the metrics port may take up 15.
    #[test]
    fn all_bounds_together_fit_the_container() {
        let mut config = GatewayConfig::default();
        config.tls.listen = Some(([127, 0, 0, 1], 20443).into());
        let total: usize = memory_bounds(&config).iter().map(MemoryBound::total).sum();
        assert!(total < 432 << 20, "{} MiB", total >> 20);
    }

    #[test]
    fn the_fields_of_a_head_count_with_their_entries() {
        let mut headers = http::HeaderMap::new();
        for _ in 0..100 {
            headers.append("a", "b".parse().unwrap());
        }
        assert_eq!(head_size(&headers, &"/path?query".parse().unwrap()), 11 + 100 * (2 + FIELD));
    }
}
