//! The client for the registry: its catalogue, draining and deregistration, self-protection.

use std::fmt;
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
use crate::text;

/// How long the registry may take to answer; a deregistration waits up to 1 s for the dependents.
const TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Escaped in a path segment: all but the unreserved characters (RFC 3986).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An instance as people name it: `SERVICE/INSTANCE`, where INSTANCE is its id or its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstanceRef {
    /// Name of the service.
    pub(crate) service: String,
    /// Id or address of the instance.
    pub(crate) instance: String,
}

impl FromStr for InstanceRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').filter(|(_, instance)| !instance.is_empty());
        let (service, instance) = parts
            .ok_or("expected SERVICE/INSTANCE, such as log/127.0.0.1:20002 or log/log-1f2e3d4c5b6a7988")?;
        check_name(service).map_err(|error| error.to_string())?;
        Ok(Self { service: service.to_owned(), instance: instance.to_owned() })
    }
}

impl fmt::Display for InstanceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.instance)
    }
}

impl InstanceRef {
    fn path(&self) -> String {
        let segment = |text| utf8_percent_encode(text, SEGMENT);
        format!("{SERVICES_PATH}/{}/{}", segment(&self.service), segment(&self.instance))
    }
}

/// A client for one registry. Clones share its connections.
#[derive(Debug, Clone)]
pub(crate) struct AdminClient {
    url: String,
    token: Option<Secret>,
    http: reqwest::Client,
}

impl AdminClient {
    /// For the registry at `url`, or else the one in the configuration.
    ///
    /// # Errors
    /// If the token file can't be read, or the HTTP client can't be built.
    pub(crate) fn new(link: &RegistryLink, url: Option<String>) -> anyhow::Result<Self> {
        let url = url.unwrap_or_else(|| link.url.clone()).trim_end_matches('/').to_owned();
        let redirect = reqwest::redirect::Policy::none();
        let http = reqwest::Client::builder().no_proxy().redirect(redirect).connect_timeout(CONNECT_TIMEOUT);
        Ok(Self { url, token: link.read_token()?, http: http.build()? })
    }

    /// The registry's base URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The HTTP client: no proxy, no redirects, and a timeout only for connecting.
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The whole catalogue.
    pub(crate) async fn catalog(&self) -> anyhow::Result<CatalogView> {
        parse_catalog(&self.catalog_json(None).await?)
    }

    /// The catalogue, or only `service`, as the registry sends it.
    pub(crate) async fn catalog_json(&self, service: Option<&str>) -> anyhow::Result<String> {
        let path = service.map(|service| format!("{SERVICES_PATH}/{service}"));
        let reply = self.send(self.request(Method::GET, path.as_deref().unwrap_or(SERVICES_PATH))).await?;
        reply
            .text()
            .await
            .map_err(|error| anyhow!("the registry broke off its answer: {}", text::root_cause(&error)))
    }

    /// The catalogue's changes, or only those of `service`.
    pub(crate) fn watch(&self, service: Option<&str>) -> EventSource {
        let query = service.map(|service| format!("?service={service}")).unwrap_or_default();
        EventSource::open(self.http.clone(), format!("{}{WATCH_PATH}{query}", self.url))
    }

    /// Drains an instance, or undoes that.
    pub(crate) async fn drain(&self, instance: &InstanceRef, drain: bool) -> anyhow::Result<()> {
        let method = if drain { Method::PUT } else { Method::DELETE };
        self.send(self.request(method, &format!("{}/drain", instance.path()))).await.map(drop)
    }

    /// Removes an instance from the catalogue.
    pub(crate) async fn deregister(&self, instance: &InstanceRef) -> anyhow::Result<()> {
        self.send(self.request(Method::DELETE, &instance.path())).await.map(drop)
    }

    /// The state of self-protection.
    pub(crate) async fn protection(&self) -> anyhow::Result<ProtectionView> {
        let reply = self.send(self.request(Method::GET, PROTECTION_PATH)).await?;
        reply.json().await.context("the answer can't be read; is this the URL of a Hubspoke registry?")
    }

    /// Switches self-protection on or off.
    pub(crate) async fn protect(&self, enabled: bool) -> anyhow::Result<()> {
        let switch = ProtectionSwitch { enabled };
        self.send(self.request(Method::PUT, PROTECTION_PATH).json(&switch)).await.map(drop)
    }

    /// Only changes carry the token: reading requires none, and `--registry` may name any server.
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let token = self.token.as_ref().filter(|_| method != Method::GET);
        let request = self.http.request(method, format!("{}{path}", self.url)).timeout(TIMEOUT);
        match token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let reply = request.send().await.map_err(|error| {
            let hint = "; run `hub up`, or pass --registry URL";
            let hint = if error.is_connect() { hint } else { "" };
            anyhow!("can't reach the registry at {}: {}{hint}", self.url, text::root_cause(&error))
        })?;
        let status = reply.status();
        if status.is_success() {
            return Ok(reply);
        }
        let detail = text::problem_detail(&reply.bytes().await.unwrap_or_default());
        let hint = if status == StatusCode::UNAUTHORIZED { " (set HUB_REGISTRY__TOKEN)" } else { "" };
        Err(anyhow!(
            "the registry answered {status}{}{detail}{hint}",
            if detail.is_empty() { "" } else { ": " }
        ))
    }
}

/// Reads a catalogue as the registry sends it.
pub(crate) fn parse_catalog(json: &str) -> anyhow::Result<CatalogView> {
    serde_json::from_str(json)
        .context("the answer is not a catalogue; is this the URL of a Hubspoke registry?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_named_by_service_and_id_or_address() {
        let instance: InstanceRef = "log/127.0.0.1:20002".parse().unwrap();
        assert_eq!(instance.path(), "/services/log/127.0.0.1%3A20002");
        assert_eq!("log/a/b ü?".parse::<InstanceRef>().unwrap().path(), "/services/log/a%2Fb%20%C3%BC%3F");
        for invalid in ["", "log", "log/", "/x", "Log/x"] {
            assert!(invalid.parse::<InstanceRef>().is_err(), "{invalid:?}");
        }
    }
}
