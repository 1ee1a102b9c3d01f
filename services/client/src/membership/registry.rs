//! The two calls that a member makes to the registry.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hubspoke_protocol::problem::ProblemDocument;
use hubspoke_protocol::{
    Deregistration, HUB_REVISION, HUB_WARNING, REGISTRY_SERVICE, Revision, SERVICES_PATH, ServiceInfo,
    ServiceLists,
};
use parking_lot::Mutex;
use reqwest::header::{HOST, HeaderMap};
use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use tokio::time::timeout;

use super::config::{MemberConfig, MemberError};
use super::targets::{Round, Target, Targets};
use super::url::RegistryUrls;
use crate::http::{self, HttpClient, HttpOptions, SendError};
use crate::token::Token;

/// Longest answer that is read, in bytes: room for ten times 10,000 instances of some 400 bytes each.
const MAX_ANSWER: usize = 40 << 20;
/// Longest time to connect to one address: a lost packet is sent again after a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Most remarks on a registration that are logged.
const MAX_WARNINGS: usize = 64;
/// Longest part of an error response that goes into an error, in characters.
const MAX_DETAIL: usize = 300;

/// Why a call to the registry failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No address to register could be determined: the registry's name does not resolve yet, or there is no route
    /// to it.
    #[error("can't tell which address of this machine the registry can reach")]
    Address(#[source] io::Error),
    /// The registry did not answer, or not in time.
    #[error("no answer")]
    NoAnswer(#[source] Box<dyn Error + Send + Sync>),
    /// The registry refused the call.
    #[error("refused with {}: {detail}", http::status_line(*status))]
    Refused {
        /// The status of its response.
        status: u16,
        /// The `detail` of its problem document, or the beginning of any other body.
        detail: String,
    },
    /// The registry answered a registration with something else than a map of lists.
    #[error("the answer to the registration is not a map of lists of instances")]
    InvalidAnswer(#[source] Box<dyn Error + Send + Sync>),
    /// The answer is too long.
    #[error("the answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
}

impl RegistryError {
    /// Whether the other one has the same cause, so that logging it tells nothing new.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Refused { status, .. }, Self::Refused { status: other, .. }) => status == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }

    /// Whether another registry may answer otherwise. One that refuses the member itself speaks for all of them; one
    /// that can't do its work does not.
    pub(super) fn is_local(&self) -> bool {
        !matches!(self, Self::Refused { status, .. } if *status < 500)
    }
}

impl From<reqwest::Error> for RegistryError {
    fn from(error: reqwest::Error) -> Self {
        Self::NoAnswer(error.into())
    }
}

impl From<SendError> for RegistryError {
    fn from(error: SendError) -> Self {
        Self::NoAnswer(error.into())
    }
}

/// Calls the registries.
pub(super) struct RegistryClient {
    http: HttpClient,
    targets: Targets,
    token: Option<Token>,
    /// What was odd about the last registration.
    warnings: Mutex<Vec<String>>,
}

impl RegistryClient {
    pub(super) fn new(config: &MemberConfig) -> Result<Self, MemberError> {
        let urls = RegistryUrls::parse(&config.registry)?;
        urls.check_tls(config.identity.is_some())?;
        // A call every 15 s is not worth keeping a connection open.
        let connect_timeout = CONNECT_TIMEOUT.min(config.timing.timeout);
        let options = HttpOptions::new(connect_timeout).with_idle_timeout(Duration::ZERO);
        let http = HttpClient::new(&[REGISTRY_SERVICE], config.identity.as_ref(), options)?;
        Ok(Self {
            http,
            targets: Targets::new(&urls),
            token: config.token.clone(),
            warnings: Mutex::default(),
        })
    }

    /// Begins a call: the registries to try, one after another.
    pub(super) fn round(&self) -> Round<'_> {
        self.targets.round()
    }

    /// Registers or renews. Returns the instances of the required services, and the revision unless the registry is
    /// core-only.
    pub(super) async fn register(
        &self,
        target: &Target,
        limit: Duration,
        info: &ServiceInfo,
    ) -> Result<(ServiceLists, Option<Revision>), RegistryError> {
        let mut response = self.send(Method::POST, target, limit, info).await?;
        self.log_warnings(response.headers(), &info.name);
        let revision = response.headers().get(HUB_REVISION).and_then(|value| value.to_str().ok());
        let revision = revision.and_then(|text| text.parse().ok());
        let body = read(&mut response, limit).await?;
        let body: &[u8] = if body.trim_ascii().is_empty() { b"null" } else { &body };
        let lists = serde_json::from_slice(body);
        Ok((lists.map_err(|error| RegistryError::InvalidAnswer(error.into()))?, revision))
    }

    /// Logs what the registry finds odd about the registration, if it has not done so before.
    fn log_warnings(&self, headers: &HeaderMap, service: &str) {
        let warnings = headers.get_all(HUB_WARNING).iter().take(MAX_WARNINGS);
        let warnings: Vec<String> = warnings
            .filter_map(|warning| warning.to_str().ok())
            .map(|warning| warning.chars().take(MAX_DETAIL).collect())
            .collect();
        let mut last = self.warnings.lock();
        for warning in warnings.iter().filter(|warning| !last.contains(warning)) {
            tracing::warn!(service, warning, "the registry has a remark on the registration");
        }
        *last = warnings;
    }

    /// Deregisters this run of the member.
    pub(super) async fn deregister(
        &self,
        target: &Target,
        limit: Duration,
        info: &ServiceInfo,
        reason: Option<&str>,
    ) -> Result<(), RegistryError> {
        let body = Deregistration { info, reason };
        read(&mut self.send(Method::DELETE, target, limit, &body).await?, limit).await.map(drop)
    }

    async fn send(
        &self,
        method: Method,
        target: &Target,
        limit: Duration,
        body: &impl Serialize,
    ) -> Result<Response, RegistryError> {
        let send = |token: Option<Arc<str>>| {
            let request = self.http.request(method.clone(), target.url(SERVICES_PATH)).timeout(limit);
            let request = request.header(HOST, target.host()).json(body);
            self.http.send(match token {
                Some(token) => request.bearer_auth(token),
                None => request,
            })
        };
        let sent = self.token.as_ref().map(Token::get);
        let mut response = send(sent.clone()).await?;
        // The file may have another token by now.
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(newer) =
                self.token.as_ref().zip(sent).and_then(|(token, sent)| token.newer_than(&sent))
        {
            response = send(Some(newer)).await?;
        }
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = read(&mut response, limit).await.unwrap_or_default();
        Err(RegistryError::Refused { status: StatusCode::as_u16(&status), detail: detail(&body) })
    }
}

/// The `detail` of a problem document, or any other body; shortened, since it goes into log lines.
fn detail(body: &[u8]) -> String {
    let detail = serde_json::from_slice::<ProblemDocument>(body).map(|problem| problem.detail);
    let detail = detail.ok().filter(|detail| !detail.is_empty());
    detail.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned()).chars().take(MAX_DETAIL).collect()
}

async fn read(response: &mut Response, limit: Duration) -> Result<Vec<u8>, RegistryError> {
    let reading = async {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(RegistryError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    };
    timeout(limit, reading).await.map_err(|_| SendError::TimedOut)?
}
