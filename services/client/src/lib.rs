//! The client side of Hubspoke: how a program in Rust takes part in a platform.
//!
//! - [`Member`] registers a service, answers heartbeats, receives pushes and deregisters.
//! - [`Directory`] has the last known instances of every required service and picks one at random.
//! - [`LogClient`] sends an entry to a random log instance; [`log::LogQueue`] does so in the background, and
//!   [`log::LogLayer`] for the program's own `tracing` events.
//! - [`LoadCounters`] count the program's requests for its heartbeats.
//! - [`trace`] carries the trace context from request to request.
//!
//! A complete service with configuration, telemetry and a server is the business of `hubspoke-chassis`; a program
//! that needs the JSON types only can use [`hubspoke_protocol`], which depends on serde alone.
//!
//! Everything runs on a tokio runtime. Foreign types appear in public signatures where they are the point: axum's
//! `Router` for the routes that a member serves, the `Layer` of `tracing-subscriber`, OpenTelemetry's `Context` in
//! [`trace`], tokio's `watch::Receiver`. The HTTP client is not among them.
//!
//! ```
//! use hubspoke_client::membership::MemberConfig;
//! use hubspoke_client::{LoadCounters, LogClient, Member};
//! use hubspoke_protocol::ServiceInfo;
//! # use hubspoke_testkit::{FakeLog, FakeRegistry};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (registry, log) = (FakeRegistry::start().await, FakeLog::start().await);
//! # registry.set("log", &[log.info()]);
//! # let registry_url = registry.url();
//! // Register `greeter`, which requires the log service, …
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let mut info = ServiceInfo::new("greeter", listener.local_addr()?.to_string());
//! info.required_services.push("log".to_owned());
//! let member = Member::new(MemberConfig::new(registry_url, info.clone()), LoadCounters::default())?;
//! let routes = member.routes().route("/greeter", axum::routing::get(async || "hello"));
//! tokio::spawn(async { axum::serve(listener, routes).await });
//! tokio::spawn({
//!     let member = member.clone();
//!     async move { member.run(std::future::pending()).await }
//! });
//! member.joined().wait_for(|joined| *joined).await?;
//!
//! // … pick one of the log instances, …
//! let instance = member.directory().pick("log").expect("a log instance");
//! // … or send it an entry, which retries with another instance if that one fails.
//! let log_client = LogClient::new(member.directory().clone(), &info)?;
//! assert_eq!(log_client.send("greeter is up").await?, instance.id());
//!
//! member.deregister().await?;
//! # assert_eq!(registry.methods(), ["POST", "DELETE"]);
//! # assert_eq!(log.texts(), ["greeter is up"]);
//! # Ok(())
//! # }
//! ```

pub mod directory;
pub mod load;
pub mod log;
pub mod membership;
pub mod trace;

mod backoff;
mod causes;
mod http;

pub use self::backoff::backoff;
pub use self::causes::with_causes;
pub use self::directory::Directory;
pub use self::http::HttpClientError;
pub use self::load::LoadCounters;
pub use self::log::LogClient;
pub use self::membership::Member;

/// The example in the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
