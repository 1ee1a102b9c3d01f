//! The wire protocol: types, paths and header names. Serde only: no IO, no clock.
//!
//! Keys are PascalCase. `ServiceInfo`'s first three fields are the core, fixed for ever; the others are
//! extensions that either side may leave out. Unknown keys are ignored, and `null` means the same as a missing
//! key or an empty list, because members written in other languages send all three.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::dedup::DedupWindow;
pub use self::limits::{InvalidAddr, InvalidInfo, InvalidName, RESERVED_NAMES, check_addr, check_name};
pub use self::view::{CatalogView, InstanceState, InstanceView, Load, Reason, ReasonKind};
pub use self::watch::{ChangeView, HeardView, LoadView, ProtectionSwitch, ProtectionView};

mod dedup;
mod limits;
pub mod problem;
pub mod sse;
mod view;
mod watch;

/// Where members register and where dependents take pushes.
pub const SERVICES_PATH: &str = "/services";
/// Server-sent events of the catalogue, on the registry.
pub const WATCH_PATH: &str = "/services/watch";
/// Self-protection, on the registry.
pub const PROTECTION_PATH: &str = "/protection";
/// Where the registry asks a member whether it is alive.
pub const HEART_BEAT_PATH: &str = "/heart-beat";
/// Where a member shows what it knows of others: a [`Snapshot`], on its control address.
pub const DIRECTORY_PATH: &str = "/directory";
/// Where a log instance takes entries.
pub const LOG_PATH: &str = "/log";

/// Header of every registry answer, push and heartbeat: a [`Revision`].
pub const HUB_REVISION: &str = "hub-revision";
/// Header of every reply of a member: the `Id` of the instance that served it.
pub const HUB_INSTANCE: &str = "hub-instance";
/// Header of a request between members: `NAME/ID` of the sender.
pub const HUB_SOURCE: &str = "hub-source";

/// In `RequiredServices`: every service there is, now and later. An extension; a gateway uses it.
pub const EVERY_SERVICE: &str = "*";

/// One instance of one service, as it registers and as its dependents learn of it.
///
/// An instance is (`name`, `addr`); `id` tells one start of its process from the next.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceInfo {
    /// Service name: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.
    pub name: String,
    /// `host:port` that callers use.
    pub addr: String,
    /// Names of the services whose instances this one wants to know.
    #[serde(default, deserialize_with = "null_as_default")]
    pub required_services: Vec<String>,
    /// One start of the process; `addr` where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `host:port` for heartbeats and pushes; `addr` where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_addr: Option<String>,
    /// How this member wants to be told of changes; [`PushMode::Event`] where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushMode>,
    /// Bearer token that the registry shows when it pushes. Never leaves the registry again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push_key: Option<String>,
    /// Free facts about the instance (`protocol`, `weight`, a version, a zone).
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// What the registry thinks of the instance, in its answers and pushes; absent means
    /// [`InstanceState::Passing`]. The registry ignores it in a registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<InstanceState>,
}

impl ServiceInfo {
    /// The core of an instance: what members without extensions send.
    pub fn new(name: impl Into<String>, addr: impl Into<String>) -> Self {
        Self { name: name.into(), addr: addr.into(), ..Self::default() }
    }

    /// `Id`, or `Addr` where the member gave none.
    pub fn id(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.addr)
    }

    /// `ControlAddr`, or `Addr` where the member gave none.
    pub fn control_addr(&self) -> &str {
        self.control_addr.as_deref().unwrap_or(&self.addr)
    }

    /// Whether callers should use the instance.
    pub fn state(&self) -> InstanceState {
        self.state.unwrap_or(InstanceState::Passing)
    }

    /// How this member wants to be told of changes.
    pub fn push(&self) -> PushMode {
        self.push.unwrap_or_default()
    }

    /// The same instance as others may see it: without its push key.
    pub fn public(&self) -> Self {
        Self { push_key: None, ..self.clone() }
    }
}

impl fmt::Debug for ServiceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceInfo")
            .field("name", &self.name)
            .field("addr", &self.addr)
            .field("required_services", &self.required_services)
            .field("id", &self.id)
            .field("control_addr", &self.control_addr)
            .field("push", &self.push)
            .field("push_key", &self.push_key.as_ref().map(|_| "[redacted]"))
            .field("meta", &self.meta)
            .field("state", &self.state)
            .finish()
    }
}

/// How a dependent is told of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PushMode {
    /// One call per instance added (`POST`) or removed (`DELETE`). The core protocol.
    #[default]
    Event,
    /// One call (`PUT`) with the whole list of each changed service.
    Snapshot,
}

/// The reply to a registration: every required name with its instances, `[]` where there is none.
///
/// Read leniently: a registry that knows only the core may answer `null` for a list or for the whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct ServiceLists(pub BTreeMap<String, Vec<ServiceInfo>>);

impl<'de> Deserialize<'de> for ServiceLists {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let lists: Option<BTreeMap<String, Option<Vec<ServiceInfo>>>> = Deserialize::deserialize(de)?;
        let lists = lists.unwrap_or_default();
        Ok(Self(lists.into_iter().map(|(name, list)| (name, list.unwrap_or_default())).collect()))
    }
}

/// A push in `snapshot` mode: the whole list of each changed service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Snapshot {
    /// The revision that these lists are of.
    pub revision: Revision,
    /// Every changed service's whole list; an empty list says that no instance is left.
    pub services: ServiceLists,
}

/// The body that a member may give with its heartbeat. An empty body means [`Status::Serving`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Heartbeat {
    /// Whether the member takes new requests.
    pub status: Status,
    /// Requests served since this start.
    pub requests: u64,
    /// Requests being served now.
    pub in_flight: u64,
}

/// What a member says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Takes requests.
    #[default]
    Serving,
    /// Finishes what it has; wants no new requests.
    Draining,
}

/// `EPOCH.N`: which loss of state, and how many changes since.
///
/// Within an epoch a greater `n` is newer; between epochs nothing can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision {
    /// New with each loss of the registry's state.
    pub epoch: u64,
    /// Grows with every change.
    pub n: u64,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.epoch, self.n)
    }
}

/// Not `EPOCH.N` (hexadecimal, decimal).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a revision is EPOCH.N, hexadecimal and decimal")]
pub struct InvalidRevision;

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

fn null_as_default<'de, D, T>(de: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(de)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
