//! The identity of an instance and of its incarnations.

use std::fmt;
use std::sync::Arc;

/// The identity of an instance: service name and address. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct InstanceKey {
    pub(crate) name: Arc<str>,
    /// `host:port`.
    pub(crate) addr: Arc<str>,
}

/// One run of an instance's process. Another `Id` at the same address is another incarnation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Incarnation {
    pub(crate) key: InstanceKey,
    /// The revision at which it registered.
    pub(crate) number: u64,
}

impl InstanceKey {
    pub(crate) fn new(name: &str, addr: &str) -> Self {
        Self { name: name.into(), addr: addr.into() }
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.addr)
    }
}
