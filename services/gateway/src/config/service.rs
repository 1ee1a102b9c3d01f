//! `[gateway.services.NAME]`: what differs for one service.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::extras::{AuthConfig, CorsConfig};
use super::lists::list;
use crate::balance::Balance;

/// Overrides for one service. An unset key means the general one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ServiceConfig {
    /// Whether the service gets the path without `/NAME`, and the prefix as `X-Forwarded-Prefix`. Unset: if its members
    /// ask for it with `"route.strip": "true"` in `Meta`.
    pub strip: Option<bool>,
    /// Hosts whose requests go to this service, whatever their path. Unset: those that its members ask for with
    /// `route.hosts` in `Meta`.
    #[serde(deserialize_with = "list")]
    pub hosts: Option<Vec<String>>,
    /// Whether a request for `/NAME` is redirected to `/NAME/`.
    pub slash: bool,
    /// Whether texts are compressed on their way to clients that accept it.
    pub compress: bool,
    /// Which pages of other origins may use it; unset: what it answers itself.
    pub cors: Option<CorsConfig>,
    /// Which service decides whether a request may pass; unset: none.
    pub auth: Option<AuthConfig>,
    /// See [`super::GatewayConfig::balance`].
    pub balance: Option<Balance>,
    /// Requests with the same value of this header field or cookie go to the same instance: `header:NAME` or
    /// `cookie:NAME`.
    pub sticky: Option<Sticky>,
    /// Whether a path with an encoded slash is refused or passed on.
    pub encoded_slash: EncodedSlash,
    /// See [`super::TimeoutsConfig::connect`].
    #[serde(with = "humantime_serde")]
    pub connect: Option<Duration>,
    /// See [`super::TimeoutsConfig::first_byte`].
    #[serde(with = "humantime_serde")]
    pub first_byte: Option<Duration>,
    /// See [`super::TimeoutsConfig::total`].
    #[serde(with = "humantime_serde")]
    pub total: Option<Duration>,
    /// See [`super::TimeoutsConfig::wait`].
    #[serde(with = "humantime_serde")]
    pub wait: Option<Duration>,
    /// See [`super::TimeoutsConfig::idle`].
    #[serde(with = "humantime_serde")]
    pub idle: Option<Duration>,
    /// See [`super::LimitsConfig::body_size`].
    pub body_size: Option<ByteSize>,
    /// See [`super::LimitsConfig::body_rate`].
    pub body_rate: Option<ByteSize>,
    /// See [`super::LimitsConfig::in_flight`].
    pub in_flight: Option<usize>,
    /// See [`super::LimitsConfig::waiting`].
    pub waiting: Option<usize>,
    /// See [`super::RetryConfig::attempts`].
    pub attempts: Option<u32>,
}

/// How `%2f` in a path is handled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EncodedSlash {
    /// The request is refused with 400, since most services can't tell it from a slash.
    #[default]
    Refuse,
    /// The path is passed on unchanged.
    Pass,
}

/// The place of a request's key for sticky routing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Sticky {
    /// A header field.
    Header(http::HeaderName),
    /// A cookie.
    Cookie(String),
}

impl TryFrom<String> for Sticky {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("header", name)) => {
                name.parse().map(Self::Header).map_err(|_| format!("{name:?} is not a valid header name"))
            }
            Some(("cookie", name)) if !name.is_empty() => Ok(Self::Cookie(name.to_owned())),
            _ => Err(format!("{text:?} is neither header:NAME nor cookie:NAME")),
        }
    }
}

impl From<Sticky> for String {
    fn from(sticky: Sticky) -> Self {
        match sticky {
            Sticky::Header(name) => format!("header:{name}"),
            Sticky::Cookie(name) => format!("cookie:{name}"),
        }
    }
}
