use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};

use super::common::Common;

/// The whole configuration of a process.
#[derive(Debug, Clone)]
pub struct Config<T> {
    /// The keys that every process has.
    pub common: Common,
    /// The service's own table.
    pub own: T,
}

/// A service's own table. Derive `Serialize`, `Deserialize` (with `deny_unknown_fields` and `default`) and `Default`.
/// The serialized default must contain every field, `None` as `null`. A key whose default is a list may be given as
/// comma-separated text.
pub trait Table: Serialize + DeserializeOwned + Default {
    /// Fields whose tables stand beside this one instead of below it, because services share them: with `["etcd"]` the
    /// field `etcd` is read from the table `[etcd]`.
    const BESIDE: &'static [&'static str] = &[];

    /// Checks what the types can't: ranges, and keys that exclude each other.
    ///
    /// # Errors
    /// The key below the table (or a table beside it, with its name), and the reason why its value is invalid.
    fn check(&self) -> Result<(), (String, String)> {
        Ok(())
    }
}

/// The table of a service without settings.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NoTable {}

impl Table for NoTable {}

/// For `deserialize_with` on a list of networks: CIDR such as `10.0.0.0/8`, or single addresses.
///
/// # Errors
/// If one of them is neither.
pub fn networks<'de, D: Deserializer<'de>>(de: D) -> Result<Vec<IpNet>, D::Error> {
    let network = |text: &String| {
        let single = || text.parse::<IpAddr>().ok().map(IpNet::from);
        text.parse().ok().or_else(single).ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is not a network; expected an address or CIDR such as 10.0.0.0/8"
            ))
        })
    };
    Vec::<String>::deserialize(de)?.iter().map(network).collect()
}
