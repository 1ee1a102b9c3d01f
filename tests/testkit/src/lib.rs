//! What the tests of all packages share. Every package may use it as a dev-dependency; it depends on
//! [`hubspoke_protocol`] alone.
//!
//! - [`eventually`] waits for a condition; no test sleeps for a fixed time.
//! - [`RawConn`] reads and writes HTTP/1.1 as text, on either side of a connection.
//! - [`h2::H2Conn`] reads and writes HTTP/2 as frames; [`h2_claims::failures`] holds a server to RFC 9113.
//! - [`websocket`] has WebSocket frames, and exchanges in the manner of the Autobahn test suite.
//! - [`TestServer`] is an axum router, or a script per connection, on a free port.
//! - [`FakeRegistry`], [`FakeMember`] and [`FakeLog`] stand in for the services of the platform, answer as a
//!   test tells them to and record what they are sent.
//! - [`otlp::Collector`] is an OpenTelemetry collector that decodes what it receives.
//! - [`conformance`] is what every HTTP/1 server must do, by the sections of the RFCs.
//! - [`etcd`] runs a real etcd, if there is one, and kills, stops, restores it.
//! - [`pki`] has authorities and certificates for mutual TLS.
//! - [`process`] runs a binary in a clean environment, with a deadline.
//!
//! Everything panics when it fails, and everything that runs stops when it is dropped.
//!
//! ```
//! use axum::{Router, routing::get};
//! use hubspoke_testkit::{RawConn, TestServer, raw};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let server = TestServer::start(Router::new().route("/", get(async || "hello"))).await;
//! let mut conn = RawConn::connect(server.addr).await;
//! conn.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
//! let response = conn.response().await;
//! assert_eq!(raw::status(&response), 200);
//! assert!(response.ends_with("hello"));
//! # }
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test names its place")]

pub use self::log::{FakeLog, LogRequest};
pub use self::member::{FakeMember, MemberReply, Push};
pub use self::raw::RawConn;
pub use self::registry::{FakeRegistry, RegistryCall};
pub use self::server::{ClosedPort, TestServer};
pub use self::wait::{DEADLINE, eventually};

pub mod conformance;
pub mod etcd;
pub mod h2;
pub mod h2_claims;
mod log;
mod member;
pub mod otlp;
pub mod pki;
pub mod process;
pub mod raw;
mod registry;
mod server;
mod wait;
pub mod websocket;
