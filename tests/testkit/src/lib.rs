//! What the tests of all packages share. Every package may use it as a dev-dependency; it depends on
//! [`hubspoke_protocol`] alone.
//!
//! - [`eventually`] waits for a condition; no test sleeps for a fixed time.
//! - [`RawConn`] reads and writes HTTP/1.1 as text, on either side of a connection.
//! - [`Server`] is an axum router, or a script per connection, on a free port.
//! - [`FakeRegistry`], [`FakeMember`] and [`FakeLog`] stand in for the services of the platform, answer as a
//!   test tells them to and record what they are sent.
//! - [`otlp::Collector`] is an OpenTelemetry collector that decodes what it receives.
//! - [`process`] runs a binary in a clean environment, with a deadline.
//!
//! Everything panics when it fails, and everything that runs stops when it is dropped.
//!
//! ```
//! use axum::{Router, routing::get};
//! use hubspoke_testkit::{RawConn, Server, raw};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let server = Server::start(Router::new().route("/", get(async || "hello"))).await;
//! let mut conn = RawConn::connect(server.addr).await;
//! conn.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
//! let response = conn.response().await;
//! assert_eq!(raw::status(&response), 200);
//! assert!(response.ends_with("hello"));
//! # }
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test names its place")]

use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use self::log::{FakeLog, LogRequest};
pub use self::member::{FakeMember, MemberReply, Push};
pub use self::raw::RawConn;
pub use self::registry::{FakeRegistry, RegistryCall};
pub use self::server::{ClosedPort, Server};

mod log;
mod member;
pub mod otlp;
pub mod process;
pub mod raw;
mod registry;
mod server;

/// Upper bound for anything a test waits for. Generous, because test machines are noisy and a test that passes
/// never waits for it.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Polls `condition` every 5 ms until it holds.
///
/// # Panics
/// With `what`, if it does not hold within [`DEADLINE`].
///
/// ```
/// # use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let polls = AtomicU32::new(0);
/// hubspoke_testkit::eventually("polled three times", async || polls.fetch_add(1, Relaxed) == 3).await;
/// # }
/// ```
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
