//! Calls that outlive an endpoint: repeated at the next one as long as nothing can have been written.

use std::time::Duration;

use rand::RngExt;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Status;

use crate::auth::{Auth, AuthSession};
use crate::config::{Config, InvalidConfig};
use crate::connection::Connection;
use crate::endpoints::Endpoints;
use crate::error::{Cause, Error, Kind, Verdict, judge};

/// How often a request may be refused for its token.
const MAX_AUTHENTICATIONS: u32 = 2;
/// Pause after all endpoints have failed once; later ones are longer.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct Rpc {
    pub(crate) endpoints: Endpoints,
    pub(crate) auth: Auth,
}

/// A method of etcd's API.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Method {
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
}

impl Method {
    pub(crate) const fn read(path: &'static str) -> Self {
        Self { path, kind: Kind::Read }
    }

    pub(crate) const fn write(path: &'static str) -> Self {
        Self { path, kind: Kind::Write }
    }
}

impl Rpc {
    pub(crate) fn new(config: Config) -> Result<Self, InvalidConfig> {
        Ok(Self { auth: Auth::new(&config), endpoints: Endpoints::new(config)? })
    }

    /// A request that is answered within `limit`, at whichever endpoint.
    pub(crate) async fn unary<Q, R>(&self, method: Method, message: Q, limit: Duration) -> Result<R, Error>
    where
        Q: prost::Message + Clone + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        self.repeat(method.kind, limit, |connection, session| {
            let message = message.clone();
            async move { connection.unary(method.path, message, session.token.as_ref()).await }
        })
        .await
    }

    /// Repeats a call until it succeeds, must not be repeated, or `limit` is over.
    pub(crate) async fn repeat<R, F: Future<Output = Result<R, Status>> + Send>(
        &self,
        kind: Kind,
        limit: Duration,
        call: impl Fn(Connection, AuthSession) -> F,
    ) -> Result<R, Error> {
        let deadline = Instant::now() + limit;
        let mut last = None;
        let mut refused: Option<AuthSession> = None;
        let mut authentications = 0;
        for attempt in 0.. {
            pause(attempt, self.endpoints.len(), deadline).await;
            let connection = match timeout_at(deadline, self.endpoints.connection()).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(cause)) if Instant::now() < deadline => {
                    last = Some(cause);
                    continue;
                }
                Ok(Err(cause)) => return Err(Error::Unavailable(cause)),
                Err(_) => return Err(Error::Unavailable(last.unwrap_or_else(|| too_slow("etcd", limit)))),
            };
            let endpoint = connection.endpoint.clone();
            let session = timeout_at(deadline, self.auth.session(&connection, refused.as_ref())).await;
            let verdict = match session {
                Err(_) => Verdict::NextEndpoint(too_slow(&endpoint, limit)),
                Ok(Err(status)) => judge(&endpoint, &status, Kind::Read),
                Ok(Ok(session)) => {
                    // A silent endpoint leaves time for another, if the request can be repeated.
                    let half = deadline - deadline.saturating_duration_since(Instant::now()) / 2;
                    let until = if kind == Kind::Read { half } else { deadline };
                    match timeout_at(until, call(connection.clone(), session.clone())).await {
                        Ok(Ok(response)) => return Ok(response),
                        Ok(Err(status)) => {
                            refused = Some(session);
                            judge(&endpoint, &status, kind)
                        }
                        Err(_) if kind == Kind::Read => Verdict::NextEndpoint(too_slow(&endpoint, limit)),
                        Err(_) => Verdict::Final(Error::OutcomeUnknown(too_slow(&endpoint, limit))),
                    }
                }
            };
            match verdict {
                Verdict::Authenticate(cause) if authentications == MAX_AUTHENTICATIONS => {
                    return Err(Error::Refused(cause));
                }
                Verdict::Authenticate(_) => authentications += 1,
                Verdict::NextEndpoint(cause) => {
                    refused = None;
                    self.endpoints.failed(&connection).await;
                    if Instant::now() >= deadline {
                        return Err(Error::Unavailable(cause));
                    }
                    last = Some(cause);
                }
                Verdict::Final(error) => {
                    if matches!(error, Error::OutcomeUnknown(_)) {
                        self.endpoints.failed(&connection).await;
                    }
                    return Err(error);
                }
            }
        }
        Err(Error::Unavailable(last.unwrap_or_else(|| too_slow("etcd", limit))))
    }
}

fn too_slow(endpoint: impl std::fmt::Display, limit: Duration) -> Cause {
    Cause::new(endpoint, format_args!("no answer within {limit:?}"))
}

/// Waits before an attempt, if each endpoint has had one.
async fn pause(attempt: u32, endpoints: usize, deadline: Instant) {
    let rounds = attempt / u32::try_from(endpoints).unwrap_or(u32::MAX).max(1);
    if rounds > 0 {
        let longest = (FIRST_PAUSE * 2u32.saturating_pow(rounds - 1)).min(MAX_PAUSE);
        let pause = longest.mul_f64(rand::rng().random_range(0.5..1.0));
        sleep_until((Instant::now() + pause).min(deadline)).await;
    }
}
