//! Certificates from an ACME server (RFC 8555) for a list of hosts: ordered, kept in a folder, and renewed when a third
//! of their lifetime is left. A failure is logged and counted, and tried again later; it never ends anything.
//!
//! - pure: `config`, `schedule`
//! - `renewer`: the task; `order`: one order; `account`: the account at the server; `folder`: what is kept
//! - `answers`: what the server asks for to see that a host is ours (HTTP-01; for TLS-ALPN-01 the [`CertStore`] answers)
//! - `transport`: HTTPS requests to the server
//!
//! It knows nothing of Hubspoke, and binds nothing: whoever serves the hosts answers by [`Answers`] in clear text and by
//! the [`CertStore`] with TLS.
//!
//! [`CertStore`]: hubspoke_tls::CertStore

mod account;
mod answers;
mod config;
mod error;
mod folder;
mod order;
mod renewer;
mod schedule;
mod transport;

pub use answers::{Answers, CHALLENGE_PATH};
pub use config::{AcmeChallenge, AcmeConfig};
pub use error::AcmeError;
pub use folder::cert_files;
pub use order::TLS_ALPN;
pub use renewer::Renewer;
