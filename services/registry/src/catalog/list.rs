//! The instances of one service as dependents get them. A list is immutable and shared: every reply and push
//! that carries it points to the same bytes, which are made at the first use and once.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use hubspoke_protocol::{InstanceState, ServiceInfo};

/// One instance in a list.
#[derive(Debug)]
pub struct Listed {
    info: Arc<ServiceInfo>,
    state: InstanceState,
    json: OnceLock<Bytes>,
}

impl Listed {
    pub(super) fn new(info: Arc<ServiceInfo>, state: InstanceState) -> Self {
        Self { info, state, json: OnceLock::new() }
    }

    /// `host:port` that callers use.
    pub fn addr(&self) -> &str {
        &self.info.addr
    }

    /// What it registered, its push key included: not for the wire.
    pub fn info(&self) -> &Arc<ServiceInfo> {
        &self.info
    }

    /// What callers are told of it.
    pub fn state(&self) -> InstanceState {
        self.state
    }

    /// Whether members that know no states may see it: to those, an instance that wants no new requests is gone.
    pub fn is_plain(&self) -> bool {
        self.state != InstanceState::Draining
    }

    /// Whether a member that knows no states sees the same in both.
    pub fn same_plain(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.info, &other.info) || self.info.public() == other.info.public()
    }

    /// The instance as one `ServiceInfo`, without its push key.
    pub fn json(&self) -> &Bytes {
        self.json.get_or_init(|| {
            let state = (self.state != InstanceState::Passing).then_some(self.state);
            let public = ServiceInfo { state, ..self.info.public() };
            Bytes::from(serde_json::to_vec(&public).unwrap_or_else(|_| b"null".to_vec()))
        })
    }
}

/// All instances of one service, sorted by address.
#[derive(Debug, Default)]
pub struct List {
    revision: u64,
    instances: Vec<Arc<Listed>>,
    json: OnceLock<Bytes>,
    plain: OnceLock<Bytes>,
}

impl List {
    pub(super) fn new(revision: u64, instances: Vec<Arc<Listed>>) -> Self {
        Self { revision, instances, ..Self::default() }
    }

    /// The revision of its last change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Its instances, sorted by address.
    pub fn instances(&self) -> &[Arc<Listed>] {
        &self.instances
    }

    /// Those that members that know no states may see.
    pub fn plain(&self) -> impl Iterator<Item = &Arc<Listed>> + Clone {
        self.instances.iter().filter(|listed| listed.is_plain())
    }

    /// The same list with one more instance, in place of what was at its address, or with one less.
    #[must_use]
    pub fn with(&self, listed: &Arc<Listed>, added: bool) -> Self {
        let mut instances = self.instances.clone();
        let at = instances.binary_search_by(|other| other.addr().cmp(listed.addr()));
        match (at, added) {
            (Ok(at), true) => instances[at] = listed.clone(),
            (Err(at), true) => instances.insert(at, listed.clone()),
            (Ok(at), false) => drop(instances.remove(at)),
            (Err(_), false) => {}
        }
        Self::new(self.revision, instances)
    }

    /// The list as a JSON array, with states.
    pub fn json(&self) -> &Bytes {
        self.json.get_or_init(|| array(self.instances.iter()))
    }

    /// The list as a JSON array, as members that know no states should see it.
    pub fn plain_json(&self) -> &Bytes {
        if self.instances.iter().all(|listed| listed.is_plain()) {
            return self.json();
        }
        self.plain.get_or_init(|| array(self.plain()))
    }
}

fn array<'a>(instances: impl Iterator<Item = &'a Arc<Listed>> + Clone) -> Bytes {
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
