//! Certificates, loaded and checked as a whole, and read again by content while the process runs: a [`CertStore`] for a
//! public server, which chooses by the name that a client asks for (SNI), and an [`Identity`] for both ends of mutual TLS.
//! A set that can't be used is reported, and the last good one stays.
//!
//! It knows nothing of Hubspoke, binds nothing, and sets no timer: whoever owns a [`CertStore`] or an [`Identity`] calls
//! `reload` every few seconds. Content is compared, not times: a mounted Secret is replaced by exchanging a symbolic link.

mod cert;
mod client_ca;
mod identity;
mod issue;
mod server;
mod socket;
mod store;
mod watched;

pub use cert::{CertError, CertFiles, validity};
pub use client_ca::ClientCa;
pub use identity::{Generation, Identity, IdentityFiles};
pub use issue::IssueCert;
pub use server::server_config;
pub use socket::{MaybeTls, TlsSocket};
pub use store::CertStore;
