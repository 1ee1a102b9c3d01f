//! The two calls that a member makes to the registry. Replies are read in whole and bounded.

use reqwest::{Method, StatusCode};

use super::Inner;
use hubspoke_protocol::problem::ProblemDocument;
use hubspoke_protocol::{HUB_REVISION, Revision, ServiceInfo, ServiceLists};

/// Longest reply that is read, in bytes: 10,000 instances at some 400 bytes each, ten times over.
const MAX_REPLY: usize = 40 << 20;

/// Why a call to the registry failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The address to register under can't be told: the registry's name does not resolve yet, or no network
    /// leads to it.
    #[error("can't tell which address of this machine the registry can reach")]
    Address(#[from] std::io::Error),
    /// It did not answer, or not in time.
    #[error("no answer")]
    Http(#[from] reqwest::Error),
    /// It answered, and refused.
    #[error("refused with {status}: {detail}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// What it said, shortened.
        detail: String,
    },
    /// Its answer is no map of lists.
    #[error("the answer to a registration is no map of lists")]
    Reply(#[source] serde_json::Error),
    /// Its answer has no end.
    #[error("the answer is longer than {MAX_REPLY} bytes")]
    TooLong,
}

impl CallError {
    /// Whether the other is of the same kind, so that saying it tells nothing new.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Refused { status, .. }, Self::Refused { status: other, .. }) => status == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// Registers or renews: the lists, and their revision where the registry stamps one.
pub(super) async fn register(
    member: &Inner,
    info: &ServiceInfo,
) -> Result<(ServiceLists, Option<Revision>), CallError> {
    let mut reply = send(member, Method::POST, info).await?;
    let stamp = reply.headers().get(HUB_REVISION).and_then(|value| value.to_str().ok());
    let revision = stamp.and_then(|text| text.parse().ok());
    let body = read(&mut reply).await?;
    let text: &[u8] = if body.trim_ascii().is_empty() { b"null" } else { &body };
    Ok((serde_json::from_slice(text).map_err(CallError::Reply)?, revision))
}

/// Deregisters this start of the member.
pub(super) async fn deregister(member: &Inner, info: &ServiceInfo) -> Result<(), CallError> {
    let mut reply = send(member, Method::DELETE, info).await?;
    read(&mut reply).await.map(drop)
}

async fn send(member: &Inner, method: Method, info: &ServiceInfo) -> Result<reqwest::Response, CallError> {
    let mut request = member.http.request(method, &member.url).json(info);
    if let Some(token) = &member.config.token {
        request = request.bearer_auth(token);
    }
    let mut reply = request.send().await?;
    let status = reply.status();
    if status.is_success() {
        return Ok(reply);
    }
    let body = read(&mut reply).await.unwrap_or_default();
    Err(CallError::Refused { status, detail: said(&body) })
}

/// The `detail` of a problem document, or whatever else was answered; shortened, since it goes into log lines.
fn said(body: &[u8]) -> String {
    let detail = serde_json::from_slice::<ProblemDocument>(body).map(|document| document.detail);
    let detail = detail.ok().filter(|detail| !detail.is_empty());
    detail.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned()).chars().take(300).collect()
}

async fn read(reply: &mut reqwest::Response) -> Result<Vec<u8>, CallError> {
    let mut body = Vec::new();
    while let Some(chunk) = reply.chunk().await? {
        if body.len() + chunk.len() > MAX_REPLY {
            return Err(CallError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
