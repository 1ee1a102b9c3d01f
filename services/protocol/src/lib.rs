//! The wire protocol of Hubspoke: JSON types, paths, header names and formats. It depends on serde alone and does no
//! IO, so a program in Rust can speak the protocol without any other package of Hubspoke.
//!
//! - [`ServiceInfo`] is an instance: a member sends it to register, and gets [`ServiceLists`] of them back.
//! - [`Heartbeat`] is how a member may answer `GET /heart-beat`; [`Snapshot`] is a push.
//! - [`CatalogView`] is what the registry shows people and tools; [`ChangeView`] and others are the events of its
//!   watch stream, which [`sse`] reads and writes.
//! - [`problem`] has the documents that every error response carries.
//! - [`check_name`] and [`check_addr`] tell which names and addresses are valid.
//! - [`DedupWindow`] recognizes log entries that were sent twice.
//!
//! JSON keys are PascalCase. `Name`, `Addr` and `RequiredServices` of a [`ServiceInfo`] are the core and never
//! change; everything else is an extension that either side may leave out. Unknown keys are ignored, and `null`
//! means the same as a missing key or an empty list, because members in other languages send all three.
//!
//! ```
//! use hubspoke_protocol::{ServiceInfo, ServiceLists};
//!
//! // The body of `POST /services` …
//! let mut info = ServiceInfo::new("visit", "10.0.0.7:20003");
//! info.required_services.push("log".to_owned());
//! assert_eq!(
//!     serde_json::to_string(&info)?,
//!     r#"{"Name":"visit","Addr":"10.0.0.7:20003","RequiredServices":["log"]}"#,
//! );
//! // … and its answer.
//! let lists: ServiceLists = serde_json::from_str(r#"{"log": [{"Name": "log", "Addr": "10.0.0.8:20002"}]}"#)?;
//! assert_eq!(lists.0["log"][0].addr, "10.0.0.8:20002");
//! # Ok::<(), serde_json::Error>(())
//! ```

pub use self::dedup::DedupWindow;
pub use self::http::{
    DIRECTORY_PATH, HEART_BEAT_PATH, HUB_INSTANCE, HUB_REVISION, HUB_SOURCE, LOG_PATH, PROTECTION_PATH,
    SERVICES_PATH, WATCH_PATH,
};
pub use self::names::{EVERY_SERVICE, InvalidAddr, InvalidName, RESERVED_NAMES, check_addr, check_name};
pub use self::protection::{ProtectionSwitch, ProtectionView};
pub use self::revision::{InvalidRevision, Revision};
pub use self::service::{InvalidInfo, PushMode, ServiceInfo, ServiceLists, Snapshot};
pub use self::state::{Heartbeat, InstanceState, Status};
pub use self::view::{CatalogView, InstanceView, Load, Reason, ReasonKind};
pub use self::watch::{ChangeView, HeardView, LoadView};

mod dedup;
mod http;
mod names;
pub mod problem;
mod protection;
mod revision;
mod service;
pub mod sse;
mod state;
mod view;
mod watch;

/// The example in the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
