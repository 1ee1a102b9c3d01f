//! What the gateway does for one service beside routing: `[gateway.services.NAME.cors]` and `[gateway.services.NAME.auth]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lists::texts;

/// A key of a service's table, and why its value is not valid.
pub(crate) type InvalidExtra = (&'static str, String);

/// Which pages of other origins may use the service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct CorsConfig {
    /// Origins, as browsers write them: `https://app.example.com`. `"*"` alone is every origin.
    #[serde(deserialize_with = "texts")]
    pub origins: Vec<String>,
    /// Methods that pages may use.
    #[serde(deserialize_with = "texts")]
    pub methods: Vec<String>,
    /// Request fields that pages may set, beside those that every page may.
    #[serde(deserialize_with = "texts")]
    pub headers: Vec<String>,
    /// Response fields that pages may read, beside those that every page may.
    #[serde(deserialize_with = "texts")]
    pub expose: Vec<String>,
    /// Whether browsers send cookies and credentials along.
    pub credentials: bool,
    /// How long browsers may remember the answer to a preflight.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
}

impl Default for CorsConfig {
    fn default() -> Self {
        let list = |methods: &[&str]| methods.iter().map(|method| (*method).to_owned()).collect();
        Self {
            origins: Vec::new(),
            methods: list(&["GET", "HEAD", "POST"]),
            headers: list(&["content-type"]),
            expose: Vec::new(),
            credentials: false,
            max_age: Duration::from_secs(600),
        }
    }
}

/// Which service decides whether a request may pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct AuthConfig {
    /// The service that is asked. It need not be public.
    pub service: String,
    /// The path at which it is asked.
    pub path: String,
    /// Fields of its answer that the request then has. The client's own are removed in any case.
    #[serde(deserialize_with = "texts")]
    pub headers: Vec<String>,
    /// Time for its answer.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            service: String::new(),
            path: "/".to_owned(),
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
        }
    }
}
