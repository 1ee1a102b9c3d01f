//! The instances of one service as its dependents get them. A list is immutable and shared: every reply and push
//! that carries it refers to the same bytes, which are rendered once, at the first use.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use hubspoke_protocol::{InstanceState, ServiceInfo};

use super::counted::CountedInfo;

/// One instance in a list.
#[derive(Debug)]
pub(crate) struct ListedInstance {
    /// Its registration, including the push key, which must not be sent.
    pub(crate) info: CountedInfo,
    /// Its state, as dependents see it.
    pub(crate) state: InstanceState,
    json: OnceLock<Bytes>,
}

impl ListedInstance {
    pub(super) fn new(info: CountedInfo, state: InstanceState) -> Self {
        Self { info, state, json: OnceLock::new() }
    }

    /// `host:port` for callers.
    pub(crate) fn addr(&self) -> &str {
        &self.info.addr
    }

    /// Whether members that know no states see it. They must not see a draining instance.
    pub(crate) fn is_plain(&self) -> bool {
        self.state != InstanceState::Draining
    }

    /// Whether a member that knows no states sees no difference between the two.
    pub(crate) fn same_plain(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.info, &other.info) || self.info.public() == other.info.public()
    }

    /// The instance as a `ServiceInfo` in JSON, without its push key.
    pub(crate) fn json(&self) -> &Bytes {
        self.json.get_or_init(|| {
            let state = (self.state != InstanceState::Passing).then_some(self.state);
            let public = ServiceInfo { state, ..self.info.public() };
            Bytes::from(serde_json::to_vec(&public).unwrap_or_else(|_| b"null".to_vec()))
        })
    }
}

/// All instances of one service, sorted by address.
#[derive(Debug, Default)]
pub(crate) struct InstanceList {
    /// The revision of its last change.
    pub(crate) revision: u64,
    pub(crate) instances: Vec<Arc<ListedInstance>>,
    json: OnceLock<Bytes>,
    plain: OnceLock<Bytes>,
}

impl InstanceList {
    pub(super) fn new(revision: u64, instances: Vec<Arc<ListedInstance>>) -> Self {
        Self { revision, instances, ..Self::default() }
    }

    /// Whether it has an instance at this address.
    pub(crate) fn contains(&self, addr: &str) -> bool {
        self.instances.binary_search_by(|listed| listed.addr().cmp(addr)).is_ok()
    }

    /// The instances that members that know no states see.
    pub(crate) fn plain(&self) -> impl Iterator<Item = &Arc<ListedInstance>> + Clone {
        self.instances.iter().filter(|listed| listed.is_plain())
    }

    /// The same list after some instances were added (`true`, in place of any at the same address) or removed.
    #[must_use]
    pub(crate) fn with<'a>(
        &'a self,
        changes: impl IntoIterator<Item = (&'a Arc<ListedInstance>, bool)>,
    ) -> Self {
        let mut by_addr: BTreeMap<_, _> =
            self.instances.iter().map(|listed| (listed.addr(), listed)).collect();
        for (listed, added) in changes {
            if added {
                by_addr.insert(listed.addr(), listed);
            } else {
                by_addr.remove(listed.addr());
            }
        }
        Self::new(self.revision, by_addr.into_values().cloned().collect())
    }

    /// The list as a JSON array, with states.
    pub(crate) fn json(&self) -> &Bytes {
        self.json.get_or_init(|| array(self.instances.iter()))
    }

    /// The list as a JSON array for members that know no states.
    pub(crate) fn plain_json(&self) -> &Bytes {
        if self.instances.iter().all(|listed| listed.is_plain()) {
            return self.json();
        }
        self.plain.get_or_init(|| array(self.plain()))
    }
}

fn array<'a>(instances: impl Iterator<Item = &'a Arc<ListedInstance>> + Clone) -> Bytes {
    let length = instances.clone().map(|listed| listed.json().len() + 1).sum::<usize>();
    let mut out = Vec::with_capacity(length + 2);
    out.push(b'[');
    for (i, listed) in instances.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(listed.json());
    }
    out.push(b']');
    Bytes::from(out)
}
