//! Certificates for a TLS server: loaded and checked as a whole, chosen by the name that a client asks for (SNI), and
//! read again by content while the server runs. A set that can't be used is reported, and the last good one stays.
//!
//! It knows nothing of Hubspoke, binds nothing, and sets no timer: whoever owns a [`CertStore`] calls
//! [`CertStore::reload`] every few seconds. Content is compared, not times: a mounted Secret is replaced by exchanging a
//! symbolic link.

mod cert;
mod client_ca;
mod issue;
mod server;
mod store;

pub use cert::{CertError, CertFiles, validity};
pub use client_ca::ClientCa;
pub use issue::IssueCert;
pub use server::server_config;
pub use store::CertStore;
