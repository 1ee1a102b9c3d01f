//! Why the gateway answers a request itself: one [`Cause`] per reason, and the problem document that reports it.
//!
//! The document names the service, the cause and the number of attempts, but no instance: that goes to the log. If the
//! request is at fault, `detail` explains why.

use http::StatusCode;
use hubspoke_chassis::{Problem, ProblemType};
use hubspoke_http1::HeadError;

use crate::edge::BadHead;
use crate::route::BadTarget;

/// The cause of a request without a response in the access log: its client closed the connection.
pub(crate) const CLIENT_CLOSED: &str = "client-closed";

/// Declares [`Cause`]: variants of [`ProblemType`], each with its `detail`.
macro_rules! causes {
    ($($variant:ident: $detail:literal,)*) => {
        /// Why the gateway answers a request itself.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Cause {
            $($variant,)*
        }

        impl Cause {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)*];

            fn problem_type(self) -> ProblemType {
                match self { $(Self::$variant => ProblemType::$variant,)* }
            }

            fn detail(self) -> &'static str {
                match self { $(Self::$variant => $detail,)* }
            }
        }
    };
}

causes! {
    BadFraming: "the request is malformed",
    BadTarget: "the request target is invalid",
    BadHost: "a request needs exactly one valid Host",
    BadBody: "the request body is malformed or was cut off",
    MethodNotAllowed: "the method is not allowed; see Allow",
    BodyTooLarge: "the request body is too large",
    TargetTooLong: "the request target is too long",
    HeadTooLarge: "the request head is too large",
    TransferCoding: "chunked is the only supported transfer coding",
    HttpVersion: "only HTTP/1 and HTTP/2 are supported",
    RequestTimeout: "the request was sent too slowly",
    Loop: "the request has passed this gateway before; see Via",
    RateLimited: "too many requests from this address",
    ClientOverloaded: "too many requests from this address are in flight",
    NoSuchService: "the first path segment is not the name of a public service",
    NotReady: "the gateway has not received the list of services yet",
    UnknownHost: "the request must be sent by https, and no certificate is for its host",
    NoInstance: "the service has no available instance",
    Overloaded: "too many requests to the service are in flight",
    TooManyConnections: "too many connections are open",
    ConnectRefused: "the instance refused the connection",
    ConnectFailed: "the connection to the instance failed",
    ConnectTimeout: "the connection to the instance timed out",
    ConnectionBroken: "the instance closed the connection before it responded",
    BadReply: "the instance's response is not valid HTTP",
    ReplyTimeout: "the instance did not respond in time",
}

impl Cause {
    /// The cause as one word: the problem's `cause`, and a label of metrics.
    pub(crate) fn name(self) -> &'static str {
        self.problem_type().name()
    }

    pub(crate) fn status(self) -> StatusCode {
        StatusCode::from_u16(self.problem_type().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether an instance failed, rather than the client or the gateway.
    pub(crate) fn is_upstream(self) -> bool {
        matches!(
            self,
            Self::ConnectRefused
                | Self::ConnectFailed
                | Self::ConnectTimeout
                | Self::ConnectionBroken
                | Self::BadReply
                | Self::ReplyTimeout
        )
    }
}

/// A request that the gateway answers itself, with the facts for the problem document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestFailure {
    pub(crate) cause: Cause,
    /// Replaces the cause's own detail. Must not identify an instance.
    pub(crate) detail: Option<String>,
    /// The service, once it is known.
    pub(crate) service: Option<String>,
    /// Attempts at instances.
    pub(crate) attempts: u32,
}

impl RequestFailure {
    pub(crate) fn new(cause: Cause) -> Self {
        Self { cause, detail: None, service: None, attempts: 0 }
    }

    pub(crate) fn for_service(mut self, service: &str) -> Self {
        self.service = Some(service.to_owned());
        self
    }

    /// A client began a TLS handshake.
    pub(crate) fn tls() -> Self {
        Self::with_detail(Cause::BadFraming, &"this port speaks HTTP without TLS")
    }

    /// A client spoke HTTP in clear text.
    pub(crate) fn no_tls() -> Self {
        Self::with_detail(Cause::BadFraming, &"this port speaks TLS; use https")
    }

    /// The path is not for the public.
    pub(crate) fn for_members() -> Self {
        Self::with_detail(Cause::NoSuchService, &"the path is for the registry and for operators")
    }

    fn with_detail(cause: Cause, detail: &dyn std::fmt::Display) -> Self {
        Self { detail: Some(detail.to_string()), ..Self::new(cause) }
    }

    /// `Retry-After`, in seconds.
    pub(crate) fn retry_after(&self) -> Option<u32> {
        let status = self.cause.status();
        let may_pass = status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS;
        may_pass.then_some(1)
    }

    /// The problem document.
    pub(crate) fn to_json(&self) -> String {
        let detail = self.detail.clone().unwrap_or_else(|| self.cause.detail().to_owned());
        let mut problem = Problem::new(self.cause.problem_type(), detail).with("cause", self.cause.name());
        if let Some(service) = &self.service {
            problem = problem.with("service", service.as_str()).with("attempts", self.attempts);
        }
        problem.to_json()
    }
}

impl From<Cause> for RequestFailure {
    fn from(cause: Cause) -> Self {
        Self::new(cause)
    }
}

impl From<BadTarget> for RequestFailure {
    fn from(error: BadTarget) -> Self {
        Self::with_detail(Cause::BadTarget, &error)
    }
}

impl From<BadHead> for RequestFailure {
    fn from(error: BadHead) -> Self {
        let cause = if error == BadHead::Method { Cause::MethodNotAllowed } else { Cause::BadHost };
        Self::with_detail(cause, &error)
    }
}

impl From<HeadError> for RequestFailure {
    fn from(error: HeadError) -> Self {
        let cause = match error {
            HeadError::Target => Cause::BadTarget,
            HeadError::TargetTooLong => Cause::TargetTooLong,
            HeadError::TooLarge | HeadError::TooManyFields => Cause::HeadTooLarge,
            // The detail of the cause names the supported versions.
            HeadError::Version => return Self::new(Cause::HttpVersion),
            HeadError::TransferCoding => Cause::TransferCoding,
            _ => Cause::BadFraming,
        };
        Self::with_detail(cause, &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_have_unique_names_and_error_statuses() {
        let mut names: Vec<_> = Cause::ALL.iter().map(|cause| cause.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Cause::ALL.len());
        assert!(Cause::ALL.iter().all(|cause| cause.status().as_u16() >= 400));
        assert!(Cause::ALL.iter().enumerate().all(|(i, cause)| *cause as usize == i));
    }

    #[test]
    fn a_problem_document_reports_cause_service_and_attempts() {
        let failure =
            RequestFailure { attempts: 3, ..RequestFailure::new(Cause::ConnectRefused).for_service("log") };
        let json: serde_json::Value = serde_json::from_str(&failure.to_json()).unwrap();
        assert_eq!(json["status"], 502);
        assert_eq!(json["cause"], "connect-refused");
        assert_eq!(json["type"], "urn:hubspoke:problem:connect-refused");
        assert_eq!(json["attempts"], 3);
        assert_eq!(json["service"], "log");
        assert_eq!(RequestFailure::new(Cause::NoInstance).retry_after(), Some(1));
        assert_eq!(failure.retry_after(), None);
    }
}
