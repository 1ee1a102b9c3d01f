//! What identifies an instance.

use std::fmt;
use std::sync::Arc;

/// The identity of an instance: service name and address. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceKey {
    /// Service name.
    pub name: Arc<str>,
    /// `host:port`.
    pub addr: Arc<str>,
}

impl InstanceKey {
    /// The key of the instance of service `name` at `addr`.
    pub fn new(name: &str, addr: &str) -> Self {
        Self { name: name.into(), addr: addr.into() }
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.addr)
    }
}
