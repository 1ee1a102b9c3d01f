//! What names an instance: its service and its address.

use std::fmt;
use std::sync::Arc;

/// An instance: (service name, address). Cloning shares both texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Service name.
    pub name: Arc<str>,
    /// `host:port`.
    pub addr: Arc<str>,
}

impl Key {
    /// The key of an instance.
    pub fn new(name: &str, addr: &str) -> Self {
        Self { name: name.into(), addr: addr.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.addr)
    }
}
