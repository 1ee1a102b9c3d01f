//! Who asks for which host.

use std::collections::{BTreeSet, HashMap};

use hubspoke_protocol::ServiceInfo;

use super::key::InstanceKey;

/// The instances that ask for hosts.
#[derive(Debug, Default)]
pub(super) struct HostIndex(HashMap<Box<str>, BTreeSet<HostAsk>>);

/// Since when an instance asks for a host; the first comes first.
pub(super) type HostAsk = (u64, InstanceKey);

impl HostIndex {
    pub(super) fn insert(&mut self, key: &InstanceKey, info: &ServiceInfo) {
        for (host, since) in &info.hosts_since {
            self.0.entry(host.as_str().into()).or_default().insert((*since, key.clone()));
        }
    }

    pub(super) fn remove(&mut self, key: &InstanceKey, info: &ServiceInfo) {
        for (host, since) in &info.hosts_since {
            if let Some(asks) = self.0.get_mut(host.as_str()) {
                asks.remove(&(*since, key.clone()));
                if asks.is_empty() {
                    self.0.remove(host.as_str());
                }
            }
        }
    }

    /// Who asks for a host, the first one first.
    pub(super) fn asks(&self, host: &str) -> impl Iterator<Item = &HostAsk> {
        self.0.get(host).into_iter().flatten()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }
}
