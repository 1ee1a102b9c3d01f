//! Tells who sent a request, and whether they may.

use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderMap, HeaderValue, header};
use hubspoke_client::{Member, Token};
use jiff::Timestamp;
use subtle::ConstantTimeEq;

use super::denied::Denied;
use super::refusals::Refusals;
use super::role::Right;
use super::subject::{CertificateNames, Subject};
use super::tokens_file::{MAX_AGE, MAX_AGE_UNKNOWN, TokensFile};
use crate::config::{Common, ConfigError};
use crate::metrics::Metrics;
use crate::server::ConnectionHandle;

/// The tokens that a process knows, and whether it asks for certificates. The default knows none and asks for none:
/// everybody may do everything.
#[derive(Default)]
pub struct AccessControl {
    /// The process's own token: whoever has it may do everything here. For the registry it is the one that it requires;
    /// a member shares it with nobody, or with everybody.
    own: Option<Token>,
    file: Option<Arc<TokensFile>>,
    /// Clients have certificates.
    certificates: bool,
    member: Option<Member>,
    refusals: Refusals,
}

impl AccessControl {
    pub(crate) fn new(
        common: &Common,
        own: Option<Token>,
        member: Option<Member>,
        metrics: &Metrics,
    ) -> Result<Self, ConfigError> {
        let file = common.access.tokens_file.as_ref().map(|path| {
            let invalid = |error| ConfigError::new(format!("access.tokens_file {}: {error}", path.display()));
            TokensFile::open(path).map(Arc::new).map_err(invalid)
        });
        let file = file.transpose()?;
        let shown = file.clone();
        let is_stale = move || shown.as_ref().is_some_and(|file: &Arc<TokensFile>| file.is_failing());
        metrics
            .meter()
            .u64_observable_gauge("hub.access.tokens.stale")
            .with_description("1 while access.tokens_file can't be used and earlier tokens stay in use")
            .with_callback(move |stale| stale.observe(is_stale().into(), &[]))
            .build();
        let refusals = Refusals::default();
        refusals.register(metrics);
        Ok(Self { own, file, certificates: common.tls.is_on(), member, refusals })
    }

    /// Whether a token or a certificate is required. Without any, everybody may do everything.
    pub fn is_on(&self) -> bool {
        self.knows_tokens() || self.certificates
    }

    fn knows_tokens(&self) -> bool {
        self.own.is_some() || self.file.is_some()
    }

    /// The token with which this process calls others.
    pub fn own_token(&self) -> Option<&Token> {
        self.own.as_ref()
    }

    /// Tells who sent a request. One without a valid token is counted, logged and delayed.
    ///
    /// # Errors
    /// [`Denied`] if a token is required, and the request has no valid one.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        connection: Option<&ConnectionHandle>,
    ) -> Result<Subject, Denied> {
        match self.subject(headers, connection, Instant::now(), Timestamp::now) {
            Ok(subject) => Ok(subject),
            Err(denied) => {
                self.refusals.refuse(&denied, headers, connection).await;
                Err(denied)
            }
        }
    }

    /// Checks whether a subject has a right. A refusal is counted, logged and delayed.
    ///
    /// # Errors
    /// [`Denied::NotPermitted`] if it does not.
    pub async fn permit(
        &self,
        subject: &Subject,
        right: Right<'_>,
        headers: &HeaderMap,
        connection: Option<&ConnectionHandle>,
    ) -> Result<(), Denied> {
        if subject.may(right) {
            return Ok(());
        }
        let denied = Denied::NotPermitted { subject: subject.to_string(), right: right.to_string() };
        self.refusals.refuse(&denied, headers, connection).await;
        Err(denied)
    }

    /// Both in one: who sent a request, if they have the right.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn require(
        &self,
        right: Right<'_>,
        headers: &HeaderMap,
        connection: Option<&ConnectionHandle>,
    ) -> Result<Subject, Denied> {
        let subject = self.authenticate(headers, connection).await?;
        self.permit(&subject, right, headers, connection).await?;
        Ok(subject)
    }

    fn subject(
        &self,
        headers: &HeaderMap,
        connection: Option<&ConnectionHandle>,
        now: Instant,
        clock: impl FnOnce() -> Timestamp,
    ) -> Result<Subject, Denied> {
        if !self.is_on() {
            return Ok(Subject::Anybody);
        }
        // Through a gateway, the certificate is not the sender's.
        let is_direct = !headers.contains_key(header::VIA);
        let certificate = connection.and_then(ConnectionHandle::certificate).filter(|_| is_direct);
        let certificate = certificate.map(|names| Subject::Certificate(CertificateNames::new(names)));
        if !self.knows_tokens() {
            return certificate.ok_or(Denied::Missing);
        }
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).and_then(bearer);
        let Some(given) = given else { return certificate.ok_or(Denied::Missing) };
        // In constant time, so that the time it takes does not reveal how much of a token was right.
        if self.own.as_ref().is_some_and(|own| own.get().as_bytes().ct_eq(given).into()) {
            return Ok(Subject::Own);
        }
        if self.member.as_ref().is_some_and(|member| member.is_push_key(given)) {
            return Ok(Subject::Registry);
        }
        let entry = self.file.as_ref().and_then(|file| {
            let find = |max_age| file.tokens(now, max_age).find(given).cloned();
            find(MAX_AGE).or_else(|| find(MAX_AGE_UNKNOWN))
        });
        let entry = entry.ok_or(Denied::Unknown)?;
        match entry.expires.filter(|_| entry.is_expired(clock())) {
            Some(at) => Err(Denied::Expired { name: entry.name.clone(), at }),
            None => Ok(Subject::Token(entry)),
        }
    }
}

impl std::fmt::Debug for AccessControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessControl").field("is_on", &self.is_on()).finish_non_exhaustive()
    }
}

fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests;
