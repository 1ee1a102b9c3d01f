#![doc = include_str!("../README.md")]

pub use self::addr::{InvalidAddr, check_addr, check_host, check_ip};
pub use self::copies::{CopyFilter, EntryIdentity, KeyedHash, entry_content};
pub use self::dedup::DedupWindow;
pub use self::hosts::{
    GatewayHosts, HOSTS_KEPT_FOR, HostRefused, MAX_ASKED_HOSTS, META_GATEWAY_HOSTS, META_ROUTE_HOSTS,
    asked_hosts, below_domain, is_host_name,
};
pub use self::http::{
    DIRECTORY_PATH, HEART_BEAT_PATH, HUB_INSTANCE, HUB_REVISION, HUB_SOURCE, HUB_WARNING, LOG_PATH,
    PROMETHEUS_TARGETS_PATH, PROTECTION_PATH, REGISTRIES_PATH, SERVICES_PATH, WATCH_PATH,
};
pub use self::metrics::{META_METRICS, METRICS_PATH, MetricsTargets};
pub use self::names::{
    EVERY_SERVICE, IDENTITY_DOMAIN, InvalidName, REGISTRY_SERVICE, RESERVED_NAMES, check_name,
};
pub use self::protection::{ProtectionSwitch, ProtectionView};
pub use self::revision::{InvalidRevision, Revision};
pub use self::service::{Deregistration, InvalidInfo, PushMode, ServiceInfo, ServiceLists, Snapshot};
pub use self::state::{Heartbeat, InstanceState, Load, Status};
pub use self::upstream::{GatewayHeartbeat, UpstreamCount};
pub use self::view::{CatalogView, InstanceView, Reason, ReasonKind, RegistriesView, RegistryView};
pub use self::watch::{ChangeView, HeardView, LoadView};

mod addr;
mod copies;
mod dedup;
mod hosts;
mod http;
mod metrics;
mod names;
pub mod problem;
mod protection;
mod revision;
mod service;
pub mod sse;
mod state;
mod upstream;
mod view;
mod watch;
