use serde::de::DeserializeOwned;
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
/// The serialized default must contain every field, `None` as `null`.
pub trait Table: Serialize + DeserializeOwned + Default {
    /// Checks what the types can't: ranges, and keys that exclude each other.
    ///
    /// # Errors
    /// The key below the table, and the reason why its value is invalid.
    fn check(&self) -> Result<(), (String, String)> {
        Ok(())
    }
}

/// The table of a service without settings.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NoTable {}

impl Table for NoTable {}

/// For `deserialize_with` on a list of strings: `["a", "b"]`, or comma-separated text (`a, b`), which is how people
/// write lists in variables.
///
/// # Errors
/// If the value is neither.
pub fn list<'de, D: Deserializer<'de>>(de: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a list of strings, or comma-separated text")]
    enum ListOrText {
        List(Vec<String>),
        Text(String),
    }
    Ok(match ListOrText::deserialize(de)? {
        ListOrText::List(list) => list,
        ListOrText::Text(text) => {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        }
    })
}
