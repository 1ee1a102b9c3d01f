//! The client for the registry: its catalogue, draining and deregistration, self-protection.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::anyhow;
use hubspoke_chassis::config::Common;
use hubspoke_client::log::LOG_SERVICE;
use hubspoke_client::membership::{RegistryUrls, check_registry_url};
use hubspoke_client::{HttpClient, HttpOptions, SendError, Token};
use hubspoke_protocol::{
    CatalogView, PROTECTION_PATH, ProtectionSwitch, ProtectionView, REGISTRY_SERVICE, SERVICES_PATH,
    WATCH_PATH, check_name,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::cause::Cause;
use crate::event_source::{EventSource, read_start};
use crate::{invocation, registry_error};

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

/// A client for one registry, or several of one platform: if one fails, the next one is asked. Clones share connections.
#[derive(Debug, Clone)]
pub(crate) struct AdminClient {
    urls: RegistryUrls,
    /// All of them, for people.
    shown: String,
    /// The one that answered last.
    first: Arc<AtomicUsize>,
    token: Option<Token>,
    http: HttpClient,
    /// For log instances.
    logs: HttpClient,
}

impl AdminClient {
    /// For the registries at `url`, or else those in the configuration.
    ///
    /// # Errors
    /// If the token file can't be read, or the HTTP client can't be built.
    pub(crate) fn new(common: &Common, url: Option<String>) -> anyhow::Result<Self> {
        let urls = RegistryUrls::parse(url.as_deref().unwrap_or(&common.registry.url))?;
        urls.check_tls(common.tls.is_on())?;
        let (token, identity) = (common.registry.read_token()?, common.tls.open()?);
        let client = |name| HttpClient::new(&[name], identity.as_ref(), HttpOptions::new(CONNECT_TIMEOUT));
        let (http, logs) = (client(REGISTRY_SERVICE)?, client(LOG_SERVICE)?);
        Ok(Self { shown: urls.to_string(), urls, first: Arc::default(), token, http, logs })
    }

    /// The registry's base URL, or all of several, for people.
    pub(crate) fn url(&self) -> &str {
        &self.shown
    }

    /// The base URL of a log instance.
    pub(crate) fn log_url(&self, addr: &str) -> String {
        format!("{}://{addr}", self.logs.scheme())
    }

    /// Sends a request to a log instance, or to a gateway for one; it carries the token, too.
    pub(crate) async fn get_log(&self, url: &str) -> Result<Response, SendError> {
        self.logs.send(self.log_request(url)).await
    }

    fn log_request(&self, url: &str) -> RequestBuilder {
        let request = self.logs.get(url);
        match &self.token {
            Some(token) => request.bearer_auth(token.get()),
            None => request,
        }
    }

    /// The stream of events of a log instance at `url`, requested with the token.
    pub(crate) fn events(
        &self,
        url: String,
        refusal: impl Fn(StatusCode, &HeaderMap, &[u8]) -> String + Send + Sync + 'static,
    ) -> EventSource {
        let client = self.clone();
        let http = self.logs.clone();
        EventSource::open(http, move |url| client.log_request(url), vec![url], refusal)
    }

    /// The whole catalogue.
    pub(crate) async fn catalog(&self) -> anyhow::Result<CatalogView> {
        Ok(self.catalog_with_json(None).await?.0)
    }

    /// The catalogue, or only `service`, and the JSON that the registry sent.
    pub(crate) async fn catalog_with_json(
        &self,
        service: Option<&str>,
    ) -> anyhow::Result<(CatalogView, String)> {
        let path = service.map(|service| format!("{SERVICES_PATH}/{service}"));
        self.read(path.as_deref().unwrap_or(SERVICES_PATH)).await
    }

    /// The catalogue's changes, or only those of `service`.
    pub(crate) fn watch(&self, service: Option<&str>) -> EventSource {
        let query = service.map(|service| format!("?service={service}")).unwrap_or_default();
        let shown = self.shown.clone();
        let refused = move |status, headers: &HeaderMap, body: &[u8]| {
            registry_error::refused(&shown, status, headers, body, false)
        };
        let urls = self.urls.iter().map(|url| format!("{url}{WATCH_PATH}{query}")).collect();
        let http = self.http.clone();
        EventSource::open(http.clone(), move |url| http.get(url), urls, refused)
    }

    /// Drains an instance, or undoes that.
    pub(crate) async fn drain(&self, instance: &InstanceRef, drain: bool) -> anyhow::Result<()> {
        let method = if drain { Method::PUT } else { Method::DELETE };
        let path = format!("{}/drain", instance.path());
        self.send(|url| self.request(method.clone(), url, &path)).await.map(drop)
    }

    /// Removes an instance from the catalogue.
    pub(crate) async fn deregister(&self, instance: &InstanceRef) -> anyhow::Result<()> {
        let path = instance.path();
        self.send(|url| self.request(Method::DELETE, url, &path)).await.map(drop)
    }

    /// The state of self-protection.
    pub(crate) async fn protection(&self) -> anyhow::Result<ProtectionView> {
        Ok(self.read(PROTECTION_PATH).await?.0)
    }

    /// Switches self-protection on or off.
    pub(crate) async fn protect(&self, enabled: bool) -> anyhow::Result<()> {
        let switch = ProtectionSwitch { enabled };
        self.send(|url| self.request(Method::PUT, url, PROTECTION_PATH).json(&switch)).await.map(drop)
    }

    /// Only changes carry the token: reading requires none, and `--registry` may name any server.
    fn request(&self, method: Method, registry: &str, path: &str) -> RequestBuilder {
        let token = self.token.as_ref().filter(|_| method != Method::GET);
        let request = self.http.request(method, format!("{registry}{path}")).timeout(TIMEOUT);
        match token {
            Some(token) => request.bearer_auth(token.get()),
            None => request,
        }
    }

    /// Reads a document.
    async fn read<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<(T, String)> {
        let reply = self.send(|url| self.request(Method::GET, url, path)).await?;
        let (status, headers) = (reply.status(), reply.headers().clone());
        let text = reply.text().await;
        let text =
            text.map_err(|error| anyhow!("the registry broke off its answer: {}", Cause::of(&error)))?;
        let document = serde_json::from_str(&text);
        let document =
            document.map_err(|_| anyhow!(registry_error::not_a_registry(&self.shown, status, &headers)))?;
        Ok((document, text))
    }

    /// Sends a request, made for the URL of a registry, to one after another until one answers. One that can't do its
    /// work does not speak for the others.
    async fn send(&self, request: impl Fn(&str) -> RequestBuilder) -> anyhow::Result<Response> {
        let (count, first) = (self.urls.iter().len(), self.first.load(Relaxed));
        let mut failure = anyhow!("no registry is configured");
        for at in (first..first + count).map(|at| at % count) {
            let Some(url) = self.urls.iter().nth(at) else { break };
            let request = request(url);
            let built = request.try_clone().and_then(|request| request.build().ok());
            let with_token = built.is_some_and(|request| request.headers().contains_key(AUTHORIZATION));
            let reply = match self.http.send(request).await {
                Ok(reply) => reply,
                Err(error) => {
                    let hub = invocation::command_line();
                    failure = anyhow!(registry_error::unanswered(&self.shown, &Cause::of_send(&error), &hub));
                    continue;
                }
            };
            let status = reply.status();
            if status.is_success() {
                self.first.store(at, Relaxed);
                return Ok(reply);
            }
            let headers = reply.headers().clone();
            let body = read_start(reply).await;
            failure = anyhow!(registry_error::refused(url, status, &headers, &body, with_token));
            if !status.is_server_error() {
                break;
            }
        }
        Err(failure)
    }
}

/// The URLs of registries as they are typed, separated by commas: see [`server_url`].
///
/// # Errors
/// If one of them can't be one.
pub(crate) fn registry_urls(text: &str) -> Result<String, String> {
    let typed = |url: &str| match url.starts_with("https://") {
        true => Ok(url.to_owned()),
        false => server_url(url),
    };
    let urls: Result<Vec<_>, _> = text.split(',').map(|url| typed(url.trim())).collect();
    let urls = urls?.join(",");
    RegistryUrls::parse(&urls).map(|_| urls).map_err(|error| error.to_string())
}

/// The URL of a server as it is typed: `http://HOST:PORT`, or only `HOST:PORT`.
///
/// # Errors
/// If it can't be one.
pub(crate) fn server_url(text: &str) -> Result<String, String> {
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    if url.starts_with("https://") {
        return Err(format!(
            "TLS is not supported; expected a URL such as http://127.0.0.1:20000, not {url:?}"
        ));
    }
    check_registry_url(&url).map_err(|error| format!("{error}, such as http://127.0.0.1:20000"))?;
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_be_typed_without_its_scheme() {
        for (text, url) in [
            ("http://127.0.0.1:20000", "http://127.0.0.1:20000"),
            ("http://registry:20000/", "http://registry:20000"),
            ("localhost:20000", "http://localhost:20000"),
            ("[::1]:20000", "http://[::1]:20000"),
        ] {
            assert_eq!(server_url(text).as_deref(), Ok(url));
        }
        for text in [
            "",
            "http://",
            "https://127.0.0.1:20000",
            "ftp://r:1",
            "r:port",
            "r:0",
            "http://u@r:1",
            "a b:1",
            "0.0.0.0:20000",
        ] {
            let error = server_url(text).unwrap_err();
            assert!(error.contains("such as http://127.0.0.1:20000"), "{text}: {error}");
        }
    }

    #[test]
    fn several_registries_are_separated_by_commas() {
        assert_eq!(registry_urls("hub-1:1, http://hub-2:2/").as_deref(), Ok("http://hub-1:1,http://hub-2:2"));
        for text in ["", "hub-1:1,", "hub-1:1,,hub-2:2"] {
            assert!(registry_urls(text).is_err(), "{text:?}");
        }
        let many: Vec<_> = (0..17).map(|n| format!("hub-{n}:1")).collect();
        assert!(registry_urls(&many.join(",")).unwrap_err().contains("more than 16 registries"));
    }

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
