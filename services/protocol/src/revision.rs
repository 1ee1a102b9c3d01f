//! Revisions of the catalogue.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `EPOCH.N`: a state of the registry's catalogue, on the wire a text (`2a.7`: the epoch in hexadecimal, `N` in
/// decimal).
///
/// Each start of the registry begins a new epoch. Within an epoch the greater `n` is the newer
/// revision; revisions of different epochs have no order.
///
/// ```
/// use hubspoke_protocol::Revision;
///
/// let revision: Revision = "2a.7".parse()?;
/// assert_eq!(revision, Revision { epoch: 42, n: 7 });
/// assert_eq!(revision.to_string(), "2a.7");
/// # Ok::<(), hubspoke_protocol::InvalidRevision>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision {
    /// New at each start of the registry.
    pub epoch: u64,
    /// Grows with every change.
    pub n: u64,
}

/// The text is not a valid [`Revision`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidRevision;

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.epoch, self.n)
    }
}

impl fmt::Display for InvalidRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a valid revision: EPOCH.N, hexadecimal and decimal")
    }
}

impl std::error::Error for InvalidRevision {}

impl FromStr for Revision {
    type Err = InvalidRevision;

    fn from_str(text: &str) -> Result<Self, InvalidRevision> {
        let (epoch, n) = text.split_once('.').ok_or(InvalidRevision)?;
        let epoch = u64::from_str_radix(epoch, 16).map_err(|_| InvalidRevision)?;
        Ok(Self { epoch, n: n.parse().map_err(|_| InvalidRevision)? })
    }
}

impl Serialize for Revision {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        ser.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Revision {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        String::deserialize(de)?.parse().map_err(serde::de::Error::custom)
    }
}
