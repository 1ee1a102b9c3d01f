//! What a member is configured with.

use std::sync::Arc;
use std::time::Duration;

use hubspoke_protocol::{InvalidInfo, ServiceInfo};
use hubspoke_tls::Identity;

use super::advertise::Advertise;
use super::url::InvalidUrl;
use crate::http::HttpClientError;
use crate::token::Token;

/// Intervals and timeouts of a member's calls to the registry. The defaults suit every service.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Timing {
    /// A renewal is due this long after the last one, less up to a quarter at random. 15 s by default.
    pub renew: Duration,
    /// With a core-only registry, the member registers again after this long without a heartbeat. 90 s by default.
    pub silence: Duration,
    /// Timeout of one call to the registry, or to all of several. 5 s by default.
    pub timeout: Duration,
    /// How long one registry may take while there is another one to ask. 3 s by default.
    pub attempt: Duration,
    /// Pause after a first failed call; see [`backoff`](crate::backoff). 100 ms by default.
    pub backoff: Duration,
    /// Longest pause between failed calls. 2 s by default.
    pub backoff_max: Duration,
    /// After a restart of the registry, instances that it does not know are carried over for this long: longer
    /// than `renew`, so that each has had time to come back. 20 s by default.
    pub epoch_grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            renew: Duration::from_secs(15),
            silence: Duration::from_secs(90),
            timeout: Duration::from_secs(5),
            attempt: Duration::from_secs(3),
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(2),
            epoch_grace: Duration::from_secs(20),
        }
    }
}

/// What a member registers, where, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MemberConfig {
    /// Base URL of the registry, such as `http://127.0.0.1:20000`, or several separated by commas: see
    /// [`RegistryUrls`](super::RegistryUrls). Any of them is asked; if it fails, the next one.
    pub registry: String,
    /// Bearer token for registering, if the registry requires one.
    pub token: Option<Token>,
    /// With it, the registry is called over mutual TLS, and its URL begins with `https://`.
    pub identity: Option<Arc<Identity>>,
    /// What to register. `addr` and `control_addr` come from `advertise`; the member chooses `push` and `push_key`.
    pub info: ServiceInfo,
    /// The addresses to register.
    pub advertise: Advertise,
    /// Intervals and timeouts.
    pub timing: Timing,
}

impl MemberConfig {
    /// Registers `info` under the addresses in it, without a token and with the default timing.
    pub fn new(registry: impl Into<String>, info: ServiceInfo) -> Self {
        Self {
            registry: registry.into(),
            token: None,
            identity: None,
            advertise: Advertise::fixed(&info),
            info,
            timing: Timing::default(),
        }
    }
}

/// Why a member can't be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemberError {
    /// A name or an address is invalid.
    #[error(transparent)]
    Info(#[from] InvalidInfo),
    /// The URL of the registry is invalid.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// The HTTP client could not be created.
    #[error(transparent)]
    Client(#[from] HttpClientError),
}
