//! The registry as others meet it: real servers on loopback, members that behave and members that do not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should say where"
)]

mod it {
    pub(crate) mod fake;
    pub(crate) mod live;
    pub(crate) mod registry;

    mod access;
    mod faults;
    mod heartbeats;
    mod lack;
    mod openapi;
    mod operate;
    mod protocol;
    mod pushes;
    mod restart;
    mod watch;
}
