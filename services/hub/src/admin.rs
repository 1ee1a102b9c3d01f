//! What operators tell a registry: drain, undrain, deregister, self-protection on and off. [`Registry`] is the
//! `hub` command's only way to a registry, the views use it too.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use hubspoke_chassis::config::{RegistryLink, Secret};
use hubspoke_protocol::{
    CatalogView, PROTECTION_PATH, ProtectionSwitch, ProtectionView, SERVICES_PATH, WATCH_PATH, check_name,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, RequestBuilder, Response, StatusCode};

use crate::event_source::EventSource;

/// How long a registry may take to answer; a deregistration waits up to 1 s for the dependents.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// What stands in a path segment as it is (RFC 3986, unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An instance as people name it: `SERVICE/INSTANCE`, where INSTANCE is its id or its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name of the service.
    pub service: String,
    /// Id or address of the instance.
    pub instance: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').filter(|(_, instance)| !instance.is_empty());
        let (service, instance) =
            parts.ok_or("SERVICE/INSTANCE, as in log/127.0.0.1:20002 or log/log-1f2e3d4c5b6a7988")?;
        check_name(service).map_err(|error| error.to_string())?;
        Ok(Self { service: service.to_owned(), instance: instance.to_owned() })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.service, self.instance)
    }
}

impl Target {
    fn path(&self) -> String {
        let segment = |text| utf8_percent_encode(text, SEGMENT);
        format!("{SERVICES_PATH}/{}/{}", segment(&self.service), segment(&self.instance))
    }
}

/// A registry to talk to.
#[derive(Debug, Clone)]
pub struct Registry {
    url: String,
    token: Option<Secret>,
    http: reqwest::Client,
}

impl Registry {
    /// The registry that the configuration names, or the one at `url`.
    ///
    /// # Errors
    /// Where the token's file can't be read, or the HTTP client can't be made.
    pub fn new(link: &RegistryLink, url: Option<String>) -> anyhow::Result<Self> {
        let url = url.unwrap_or_else(|| link.url.clone()).trim_end_matches('/').to_owned();
        let redirect = reqwest::redirect::Policy::none();
        let http = reqwest::Client::builder().no_proxy().redirect(redirect).connect_timeout(CONNECT_TIMEOUT);
        Ok(Self { url, token: link.read_token()?, http: http.build()? })
    }

    /// Its base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The client that it is talked to with: no proxy, no redirects, no timeout but for the connection.
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The whole catalogue.
    ///
    /// # Errors
    /// Where the registry can't be reached, or answers anything else.
    pub async fn catalog(&self) -> anyhow::Result<CatalogView> {
        let reply = self.call(self.request(Method::GET, SERVICES_PATH)).await?;
        reply.json().await.context("that is no catalogue; is the URL that of a Hubspoke registry?")
    }

    /// Follows the catalogue's changes, those of `service` only where one is given.
    pub fn watch(&self, service: Option<&str>) -> EventSource {
        let query = service.map(|service| format!("?service={service}")).unwrap_or_default();
        EventSource::open(self.http.clone(), format!("{}{WATCH_PATH}{query}", self.url))
    }

    /// Asks for no more new requests to an instance, or takes that back.
    ///
    /// # Errors
    /// Where the registry can't be reached, or refuses.
    pub async fn drain(&self, target: &Target, drain: bool) -> anyhow::Result<()> {
        let method = if drain { Method::PUT } else { Method::DELETE };
        self.call(self.request(method, &format!("{}/drain", target.path()))).await.map(drop)
    }

    /// Takes an instance out of the catalogue.
    ///
    /// # Errors
    /// Where the registry can't be reached, or refuses.
    pub async fn deregister(&self, target: &Target) -> anyhow::Result<()> {
        self.call(self.request(Method::DELETE, &target.path())).await.map(drop)
    }

    /// Self-protection as it stands.
    ///
    /// # Errors
    /// Where the registry can't be reached, or answers anything else.
    pub async fn protection(&self) -> anyhow::Result<ProtectionView> {
        let reply = self.call(self.request(Method::GET, PROTECTION_PATH)).await?;
        reply.json().await.context("that is no answer of a Hubspoke registry")
    }

    /// Switches self-protection on or off.
    ///
    /// # Errors
    /// Where the registry can't be reached, or refuses.
    pub async fn protect(&self, enabled: bool) -> anyhow::Result<()> {
        let switch = ProtectionSwitch { enabled };
        self.call(self.request(Method::PUT, PROTECTION_PATH).json(&switch)).await.map(drop)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url)).timeout(TIMEOUT);
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    async fn call(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let reply = request.send().await.with_context(|| format!("no registry answers at {}", self.url))?;
        let status = reply.status();
        if status.is_success() {
            return Ok(reply);
        }
        let detail = crate::text::problem_detail(&reply.bytes().await.unwrap_or_default());
        let hint = if status == StatusCode::UNAUTHORIZED { " (set HUB_REGISTRY__TOKEN)" } else { "" };
        Err(anyhow!(
            "the registry answers {status}{}{detail}{hint}",
            if detail.is_empty() { "" } else { ": " }
        ))
    }
}

/// Self-protection in a sentence.
pub fn said(protection: &ProtectionView) -> String {
    let held = match protection.held_back {
        0 => "holds back no removal".to_owned(),
        1 => "holds back the removal of 1 instance".to_owned(),
        n => format!("holds back the removal of {n} instances"),
    };
    let until =
        protection.until.as_ref().map(|until| format!(", until {until} at the latest")).unwrap_or_default();
    let state = if protection.enabled { "on" } else { "off" };
    format!("self-protection is {state}; the registry {held}{until}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_named_by_service_and_id_or_address() {
        let target: Target = "log/127.0.0.1:20002".parse().unwrap();
        assert_eq!(target.path(), "/services/log/127.0.0.1%3A20002");
        assert_eq!("log/a/b ü?".parse::<Target>().unwrap().path(), "/services/log/a%2Fb%20%C3%BC%3F");
        for wrong in ["", "log", "log/", "/x", "Log/x"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn self_protection_in_a_sentence() {
        let mut view = ProtectionView { enabled: true, until: None, held_back: 0 };
        assert_eq!(said(&view), "self-protection is on; the registry holds back no removal\n");
        view.held_back = 7;
        view.until = Some("2026-11-23T08:00:00Z".to_owned());
        assert!(said(&view).contains("removal of 7 instances, until 2026-11-23T08:00:00Z at the latest"));
    }
}
