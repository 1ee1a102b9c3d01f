//! Registrations, counted by the memory that they take up until nothing refers to them any more: lists, pushes and the
//! history of changes keep one longer than the catalogue does.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hubspoke_protocol::ServiceInfo;

/// Bytes of an instance beside its texts: its record and history, entries of indexes, list and schedule, connections.
const PER_INSTANCE: usize = 3 << 10;
/// Bytes of a required name beside its text: the text's allocation, and the entry among the dependents.
const PER_REQUIRED: usize = 200;
/// Bytes of an entry of `Meta` beside its texts; twice that for a host and who asks for it.
const PER_META: usize = 100;
/// How often a text exists: as registered, in the list of its service, and as an event for watchers; one more for what
/// allocations waste.
const COPIES: usize = 4;

/// The memory of all registrations.
#[derive(Debug, Default)]
pub(super) struct InfoMemory(Arc<AtomicUsize>);

impl InfoMemory {
    /// Counts a registration until it is dropped.
    pub(super) fn count(&self, info: impl Into<Arc<ServiceInfo>>) -> CountedInfo {
        let info = info.into();
        let size = size(&info);
        self.0.fetch_add(size, Relaxed);
        CountedInfo(Arc::new(Counted { info, size, used: self.0.clone() }))
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// A registration that is counted. Cheap to clone; copies count once.
#[derive(Debug, Clone)]
pub(crate) struct CountedInfo(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    info: Arc<ServiceInfo>,
    size: usize,
    used: Arc<AtomicUsize>,
}

impl Deref for CountedInfo {
    type Target = Arc<ServiceInfo>;

    fn deref(&self) -> &Arc<ServiceInfo> {
        &self.0.info
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.used.fetch_sub(self.size, Relaxed);
    }
}

/// About the memory that an instance with this registration takes up, in bytes.
pub(super) fn size(info: &ServiceInfo) -> usize {
    let texts = [&info.control_addr, &info.id, &info.push_key].into_iter().flatten();
    let meta = info.meta.iter().map(|(key, value)| PER_META / COPIES + key.len() + value.len());
    let hosts = info.hosts_since.keys().map(|host| 2 * PER_META / COPIES + host.len());
    let extras = meta.chain(hosts).sum::<usize>();
    let text = info.name.len() + info.addr.len() + texts.map(String::len).sum::<usize>() + extras;
    let required = info.required_services.iter().map(|name| PER_REQUIRED + COPIES * name.len());
    PER_INSTANCE + COPIES * text + required.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_counts_once_and_until_its_last_copy_is_dropped() {
        let memory = InfoMemory::default();
        let info = ServiceInfo::new("log", "127.0.0.1:80");
        let (one, copy) = (memory.count(info.clone()), memory.count(info.clone()));
        let kept = one.clone();
        assert_eq!(memory.used(), 2 * size(&info));
        drop((one, copy));
        assert_eq!(memory.used(), size(&info));
        drop(kept);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn what_its_sender_chooses_counts() {
        let small = ServiceInfo::new("log", "127.0.0.1:80");
        let mut large = small.clone();
        large.required_services = (0..256).map(|n| format!("{n:063}")).collect();
        large.meta = (0..64).map(|n| (n.to_string(), "x".repeat(62))).collect();
        large.id = Some("i".repeat(256));
        let sent = serde_json::to_vec(&large).unwrap().len();
        assert!(size(&small) < 4096, "{}", size(&small));
        assert!(size(&large) > 4 * sent, "{} for {sent}", size(&large));
    }
}
