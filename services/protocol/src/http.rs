//! Paths and header names.

/// On the registry: register (`POST`), deregister (`DELETE`) and list (`GET`). On a member: pushes.
pub const SERVICES_PATH: &str = "/services";
/// On the registry: server-sent events of every change, see [`CatalogView`](crate::CatalogView).
pub const WATCH_PATH: &str = "/services/watch";
/// On the registry: self-protection, see [`ProtectionView`](crate::ProtectionView).
pub const PROTECTION_PATH: &str = "/protection";
/// On the registry: the registries that share the catalogue, see [`RegistriesView`](crate::RegistriesView).
pub const REGISTRIES_PATH: &str = "/registries";
/// Path of the targets for Prometheus.
pub const PROMETHEUS_TARGETS_PATH: &str = "/prometheus/targets";
/// On a member: heartbeats, see [`Heartbeat`](crate::Heartbeat).
pub const HEART_BEAT_PATH: &str = "/heart-beat";
/// On a member: the instances that it knows, as a [`Snapshot`](crate::Snapshot).
pub const DIRECTORY_PATH: &str = "/directory";
/// On a log instance: takes entries.
pub const LOG_PATH: &str = "/log";

/// In every answer, push and heartbeat of the registry: a [`Revision`](crate::Revision).
pub const HUB_REVISION: &str = "hub-revision";
/// In every response of a member: the `Id` of the instance that served it.
pub const HUB_INSTANCE: &str = "hub-instance";
/// In the answer to a registration: what is odd about it, such as an unknown key, for people. May come several times.
pub const HUB_WARNING: &str = "hub-warning";
/// In a request between members: `NAME/ID` of the sender.
pub const HUB_SOURCE: &str = "hub-source";
