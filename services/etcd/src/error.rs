//! Failed requests, by what the caller can do about them.

use std::fmt;
use std::sync::Arc;

use tonic::{Code, Status};

/// Why a request failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No endpoint answered in time, or the cluster has no leader. Nothing was written; the request can be repeated.
    #[error("etcd is not available")]
    Unavailable(#[source] Cause),
    /// A write was sent, and no answer came. It may have been applied, or may be later.
    #[error("etcd did not say whether it has applied a write")]
    OutcomeUnknown(#[source] Cause),
    /// etcd refused: wrong credentials, no permission, no space, an invalid request. Repeating it is useless until
    /// somebody changes that.
    #[error("etcd refused a request")]
    Refused(#[source] Cause),
    /// The revision has been compacted.
    #[error("the revision is compacted")]
    Compacted,
    /// The revision does not exist yet, or no longer: the cluster was restored from an older backup.
    #[error("the revision is in the future")]
    FutureRevision,
}

/// The failure that etcd or the network reported, and the endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause(Arc<str>);

impl Cause {
    pub(crate) fn new(endpoint: impl fmt::Display, text: impl fmt::Display) -> Self {
        Self(format!("{endpoint}: {text}").into())
    }

    /// A failure with all its causes.
    pub(crate) fn of(endpoint: impl fmt::Display, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        Self::new(endpoint, text)
    }

    /// The failure that a gRPC status reports.
    pub(crate) fn of_status(endpoint: impl fmt::Display, status: &Status) -> Self {
        match std::error::Error::source(status) {
            Some(source) => Self::of(endpoint, source),
            None => Self::new(endpoint, status.message()),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cause {}

/// Whether a request changes something: then a lost answer matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

/// The next step after a failed attempt.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Try again at the next endpoint: nothing was written.
    NextEndpoint(Cause),
    /// Authenticate, then try again: nothing was written.
    Authenticate(Cause),
    /// Give up.
    Final(Error),
}

/// Sorts a failure that etcd or the connection to it has reported. The texts are those of etcd's `rpctypes/error.go`.
pub(crate) fn judge(endpoint: impl fmt::Display, status: &Status, kind: Kind) -> Verdict {
    let text = status.message();
    let cause = Cause::of_status(endpoint, status);
    match status.code() {
        Code::OutOfRange if text.contains("compacted") => Verdict::Final(Error::Compacted),
        Code::OutOfRange if text.contains("future revision") => Verdict::Final(Error::FutureRevision),
        _ if asks_for_authentication(text) => Verdict::Authenticate(cause),
        // Refused before anything was proposed to the cluster.
        Code::Unavailable if text == "etcdserver: no leader" || text.contains("not capable") => {
            Verdict::NextEndpoint(cause)
        }
        Code::ResourceExhausted if text.contains("too many requests") => Verdict::NextEndpoint(cause),
        Code::Unavailable if is_connect_error(status) => Verdict::NextEndpoint(cause),
        // Learners answer so.
        Code::Unavailable if text.contains("rpc not supported for learner") => Verdict::NextEndpoint(cause),
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => match kind {
            Kind::Read => Verdict::NextEndpoint(cause),
            Kind::Write => Verdict::Final(Error::OutcomeUnknown(cause)),
        },
        _ => Verdict::Final(Error::Refused(cause)),
    }
}

/// Whether a token has expired, or authentication was switched on since.
pub(crate) fn asks_for_authentication(text: &str) -> bool {
    ["invalid auth token", "revision of auth store is old", "user name is empty"]
        .iter()
        .any(|part| text.contains(part))
}

/// Whether the connection was never made, so nothing was sent.
fn is_connect_error(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(code: Code, text: &str, kind: Kind) -> String {
        match judge("etcd", &Status::new(code, text), kind) {
            Verdict::NextEndpoint(_) => "next".to_owned(),
            Verdict::Authenticate(_) => "authenticate".to_owned(),
            Verdict::Final(error) => error.to_string(),
        }
    }

    #[test]
    fn only_a_write_that_may_have_been_proposed_has_an_unknown_outcome() {
        use Kind::{Read, Write};
        let unknown = "etcd did not say whether it has applied a write";
        for (code, text, kind, expected) in [
            (Code::Unavailable, "etcdserver: no leader", Write, "next"),
            (Code::Unavailable, "etcdserver: request timed out", Write, unknown),
            (Code::Unavailable, "etcdserver: leader changed", Write, unknown),
            (Code::Unavailable, "etcdserver: leader changed", Read, "next"),
            (Code::Unknown, "transport error", Write, unknown),
            (Code::Unknown, "transport error", Read, "next"),
            (Code::ResourceExhausted, "etcdserver: too many requests", Write, "next"),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                Write,
                "etcd refused a request",
            ),
            (Code::PermissionDenied, "etcdserver: permission denied", Write, "etcd refused a request"),
            (Code::InvalidArgument, "etcdserver: user name is empty", Write, "authenticate"),
            (Code::Unauthenticated, "etcdserver: invalid auth token", Read, "authenticate"),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                Read,
                "the revision is compacted",
            ),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
                Read,
                "the revision is in the future",
            ),
        ] {
            assert_eq!(verdict(code, text, kind), expected, "{text} {kind:?}");
        }
    }
}
