//! Instances as they register and as their dependents learn of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::addr::{InvalidAddr, check_addr};
use crate::hosts::{META_ROUTE_HOSTS, asked_hosts};
use crate::names::{EVERY_SERVICE, InvalidName, check_name};
use crate::problem::lenient;
use crate::revision::Revision;
use crate::state::InstanceState;

/// One instance of one service: the body of a registration, and an element of every list of instances.
///
/// An instance is identified by (`name`, `addr`); `id` tells one run of its process from the next. `Name`,
/// `Addr` and `RequiredServices` are the core protocol; everything else is an extension that either side may
/// leave out.
///
/// ```
/// use hubspoke_protocol::ServiceInfo;
///
/// let info: ServiceInfo = serde_json::from_str(
///     r#"{"Name": "visit", "Addr": "10.0.0.7:20003", "RequiredServices": ["log"], "Id": "visit-1"}"#,
/// )?;
/// assert_eq!((info.id(), info.control_addr()), ("visit-1", "10.0.0.7:20003"));
/// info.check()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceInfo {
    /// Service name: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.
    pub name: String,
    /// `host:port` for callers.
    pub addr: String,
    /// Names of the services whose instances this one wants to know; [`EVERY_SERVICE`] for all.
    #[serde(default, deserialize_with = "null_as_default")]
    pub required_services: Vec<String>,
    /// Identifies one run of the process. Missing: the same as `addr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `host:port` for heartbeats and pushes. Missing: the same as `addr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_addr: Option<String>,
    /// How this member receives changes. Missing: [`PushMode::Event`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushMode>,
    /// Bearer token that the registry sends with its pushes. The registry shows it to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push_key: Option<String>,
    /// Any facts about the instance, such as `protocol`, `weight`, a version or a zone.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// Since when the service has asked for each of these hosts without interruption, in milliseconds since 1970, in the
    /// registry's answers and pushes: of two services that ask for one, the first has it. Ignored in a registration.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts_since: BTreeMap<String, u64>,
    /// The instance's state, in the registry's answers and pushes. Missing: [`InstanceState::Passing`]. Ignored in
    /// a registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<InstanceState>,
}

impl ServiceInfo {
    /// An instance with the core fields only, which requires no services.
    pub fn new(name: impl Into<String>, addr: impl Into<String>) -> Self {
        Self { name: name.into(), addr: addr.into(), ..Self::default() }
    }

    /// `Id`, or `Addr` if the member sent none.
    pub fn id(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.addr)
    }

    /// The one id by which people and tools know the instance: `Id`, or one that is derived from `Name` and `Addr` if
    /// the member sent none. It does not show the address, so that clients may see it.
    #[expect(
        deprecated,
        reason = "unlike the other hashers of std, it is always the same: SipHash 2-4 with a zero key"
    )]
    pub fn instance_id(&self) -> Cow<'_, str> {
        match &self.id {
            Some(id) if *id != self.addr => Cow::Borrowed(id),
            _ => {
                let mut hasher = std::hash::SipHasher::new();
                hasher.write(self.addr.as_bytes());
                Cow::Owned(format!("{}-{:016x}", self.name, hasher.finish()))
            }
        }
    }

    /// `ControlAddr`, or `Addr` if the member sent none.
    pub fn control_addr(&self) -> &str {
        self.control_addr.as_deref().unwrap_or(&self.addr)
    }

    /// Whether `ControlAddr` is on another host than `Addr`, as far as their texts show.
    pub fn controls_other_host(&self) -> bool {
        let host = |addr: &str| {
            let (host, _) = addr.rsplit_once(':').unwrap_or((addr, ""));
            let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
            ip.map_or_else(|_| host.to_ascii_lowercase(), |ip| ip.to_canonical().to_string())
        };
        self.control_addr.as_deref().is_some_and(|control| host(control) != host(&self.addr))
    }

    /// Whether callers should use the instance.
    pub fn state(&self) -> InstanceState {
        self.state.unwrap_or(InstanceState::Passing)
    }

    /// The hosts that it asks for in `Meta`, in lower case.
    pub fn asked_hosts(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.meta.get(META_ROUTE_HOSTS).into_iter().flat_map(|list| asked_hosts(list))
    }

    /// How this member receives changes.
    pub fn push(&self) -> PushMode {
        self.push.unwrap_or_default()
    }

    /// A copy without the push key, as others may see it.
    pub fn public(&self) -> Self {
        Self { push_key: None, ..self.clone() }
    }

    /// Checks names and addresses.
    ///
    /// # Errors
    /// [`InvalidInfo`] for the first invalid field.
    pub fn check(&self) -> Result<(), InvalidInfo> {
        check_name(&self.name).map_err(InvalidInfo::Name)?;
        check_addr(&self.addr).map_err(InvalidInfo::Addr)?;
        if let Some(addr) = &self.control_addr {
            check_addr(addr).map_err(InvalidInfo::ControlAddr)?;
        }
        for name in self.required_services.iter().filter(|name| *name != EVERY_SERVICE) {
            check_name(name).map_err(InvalidInfo::Required)?;
        }
        Ok(())
    }
}

/// The body of a deregistration. Of the instance, `Name`, `Addr` and `Id` count.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Deregistration<'a> {
    /// The instance.
    #[serde(flatten)]
    pub info: &'a ServiceInfo,
    /// Why it ends, for people, such as "exited with code 3". An extension; registries keep up to 200 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
}

/// Redacts the push key.
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
            .field("hosts_since", &self.hosts_since)
            .field("state", &self.state)
            .finish()
    }
}

/// The first invalid field of a [`ServiceInfo`], by its JSON key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidInfo {
    /// `Name`.
    Name(InvalidName),
    /// `Addr`.
    Addr(InvalidAddr),
    /// `ControlAddr`.
    ControlAddr(InvalidAddr),
    /// An element of `RequiredServices`.
    Required(InvalidName),
}

impl fmt::Display for InvalidInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(invalid) => write!(f, "Name: {invalid}"),
            Self::Addr(invalid) => write!(f, "Addr: {invalid}"),
            Self::ControlAddr(invalid) => write!(f, "ControlAddr: {invalid}"),
            Self::Required(invalid) => write!(f, "RequiredServices: {invalid}"),
        }
    }
}

impl std::error::Error for InvalidInfo {}

/// How a dependent receives changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PushMode {
    /// One call for each instance that was added (`POST`) or removed (`DELETE`). The core protocol.
    #[default]
    Event,
    /// One call (`PUT`) with the whole list of each changed service: a [`Snapshot`].
    Snapshot,
}

/// The answer to a registration: every required name with its instances, `[]` if there are none.
///
/// `null` for a list, or for the whole answer, means the same as empty: registries that know only the core send it.
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

/// A push in [`PushMode::Snapshot`]: the whole list of each changed service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Snapshot {
    /// The revision of these lists.
    pub revision: Revision,
    /// Every changed service with all its instances; an empty list means that none is left.
    pub services: ServiceLists,
}

fn null_as_default<'de, D, T>(de: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(de)?.unwrap_or_default())
}
