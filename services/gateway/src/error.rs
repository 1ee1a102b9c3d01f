//! Why the gateway answers by itself, and how it says so: one [`Cause`] per reason, machine-readable, with its status.
//!
//! A reply names the service, the cause and the number of attempts, and never an instance's address: that goes to the
//! log. Refusals of a request are the client's to mend, and say what was wrong with it.

use http::StatusCode;
use hubspoke_chassis::{Problem, ProblemType};

use crate::edge::BadHead;
use crate::edge::framing::Fault;
use crate::route::BadTarget;

/// Why the gateway answers by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    BadFraming,
    BadTarget,
    BadHost,
    BadBody,
    MethodNotAllowed,
    BodyTooLarge,
    TargetTooLong,
    HeadTooLarge,
    TransferCoding,
    HttpVersion,
    RequestTimeout,
    Loop,
    RateLimited,
    NoSuchService,
    NotReady,
    NoInstance,
    Overloaded,
    TooManyConnections,
    ConnectRefused,
    ConnectFailed,
    ConnectTimeout,
    ConnectionBroken,
    BadReply,
    ReplyTimeout,
}

impl Cause {
    pub(crate) const ALL: [Self; 24] = [
        Self::BadFraming,
        Self::BadTarget,
        Self::BadHost,
        Self::BadBody,
        Self::MethodNotAllowed,
        Self::BodyTooLarge,
        Self::TargetTooLong,
        Self::HeadTooLarge,
        Self::TransferCoding,
        Self::HttpVersion,
        Self::RequestTimeout,
        Self::Loop,
        Self::RateLimited,
        Self::NoSuchService,
        Self::NotReady,
        Self::NoInstance,
        Self::Overloaded,
        Self::TooManyConnections,
        Self::ConnectRefused,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::ConnectionBroken,
        Self::BadReply,
        Self::ReplyTimeout,
    ];

    /// The cause for machines.
    pub(crate) fn name(self) -> &'static str {
        self.problem_type().name()
    }

    pub(crate) fn status(self) -> StatusCode {
        StatusCode::from_u16(self.problem_type().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether an instance failed, and not the client or the gateway.
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

    /// The problem's type, which gives the cause's word and its status.
    fn problem_type(self) -> ProblemType {
        match self {
            Self::BadFraming => ProblemType::BadFraming,
            Self::BadTarget => ProblemType::BadTarget,
            Self::BadHost => ProblemType::BadHost,
            Self::BadBody => ProblemType::BadBody,
            Self::MethodNotAllowed => ProblemType::MethodNotAllowed,
            Self::BodyTooLarge => ProblemType::BodyTooLarge,
            Self::TargetTooLong => ProblemType::TargetTooLong,
            Self::HeadTooLarge => ProblemType::HeadTooLarge,
            Self::TransferCoding => ProblemType::TransferCoding,
            Self::HttpVersion => ProblemType::HttpVersion,
            Self::RequestTimeout => ProblemType::RequestTimeout,
            Self::Loop => ProblemType::Loop,
            Self::RateLimited => ProblemType::RateLimited,
            Self::NoSuchService => ProblemType::NoSuchService,
            Self::NotReady => ProblemType::NotReady,
            Self::NoInstance => ProblemType::NoInstance,
            Self::Overloaded => ProblemType::Overloaded,
            Self::TooManyConnections => ProblemType::TooManyConnections,
            Self::ConnectRefused => ProblemType::ConnectRefused,
            Self::ConnectFailed => ProblemType::ConnectFailed,
            Self::ConnectTimeout => ProblemType::ConnectTimeout,
            Self::ConnectionBroken => ProblemType::ConnectionBroken,
            Self::BadReply => ProblemType::BadReply,
            Self::ReplyTimeout => ProblemType::ReplyTimeout,
        }
    }

    /// What it means, for people.
    fn detail(self) -> &'static str {
        match self {
            Self::BadFraming => "the request is malformed",
            Self::BadTarget => "the request target is not acceptable",
            Self::BadHost => "a request needs one valid Host",
            Self::BadBody => "the request body is malformed or was cut off",
            Self::MethodNotAllowed => "see Allow",
            Self::BodyTooLarge => "the request body is too large",
            Self::TargetTooLong => "the request target is too long",
            Self::HeadTooLarge => "the request head is too large",
            Self::TransferCoding => "the only transfer coding here is chunked",
            Self::HttpVersion => "only HTTP/1 and HTTP/2 are spoken here",
            Self::RequestTimeout => "the request came too slowly",
            Self::Loop => "the request has been here before; see Via",
            Self::RateLimited => "too many requests from this address",
            Self::NoSuchService => "the first path segment names no public service",
            Self::NotReady => "the gateway does not know the services yet",
            Self::NoInstance => "no instance of the service is there",
            Self::Overloaded => "too many requests to the service are in flight",
            Self::TooManyConnections => "too many connections are open",
            Self::ConnectRefused => "the instance refused the connection",
            Self::ConnectFailed => "the instance could not be reached",
            Self::ConnectTimeout => "the instance could not be reached in time",
            Self::ConnectionBroken => "the instance closed the connection before it replied",
            Self::BadReply => "the instance's reply is not valid HTTP",
            Self::ReplyTimeout => "the instance did not reply in time",
        }
    }
}

/// A refusal or failure, with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// More than [`Cause`] says by itself; never anything about an instance.
    pub(crate) detail: Option<String>,
    /// The service, where one was named.
    pub(crate) service: Option<String>,
    /// Requests that were sent to instances, or tried to be.
    pub(crate) attempts: u32,
}

impl Failure {
    pub(crate) fn new(cause: Cause) -> Self {
        Self { cause, detail: None, service: None, attempts: 0 }
    }

    pub(crate) fn of(mut self, service: &str) -> Self {
        self.service = Some(service.to_owned());
        self
    }

    fn because(cause: Cause, why: &dyn std::fmt::Display) -> Self {
        Self { detail: Some(why.to_string()), ..Self::new(cause) }
    }

    /// Seconds after which to try again.
    pub(crate) fn retry_after(&self) -> Option<u32> {
        let later =
            self.cause.status() == StatusCode::SERVICE_UNAVAILABLE || self.cause == Cause::RateLimited;
        later.then_some(1)
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

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        Self::new(cause)
    }
}

impl From<BadTarget> for Failure {
    fn from(why: BadTarget) -> Self {
        Self::because(Cause::BadTarget, &why)
    }
}

impl From<BadHead> for Failure {
    fn from(why: BadHead) -> Self {
        let cause = if why == BadHead::Method { Cause::MethodNotAllowed } else { Cause::BadHost };
        Self::because(cause, &why)
    }
}

impl From<Fault> for Failure {
    fn from(why: Fault) -> Self {
        let cause = match why {
            Fault::Syntax
            | Fault::BareLineFeed
            | Fault::ContentLength
            | Fault::LengthAndCoding
            | Fault::Disguise
            | Fault::CodingInOldVersion => Cause::BadFraming,
            Fault::Target => Cause::BadTarget,
            Fault::TargetTooLong => Cause::TargetTooLong,
            Fault::HeadTooLarge | Fault::TooManyHeaders => Cause::HeadTooLarge,
            Fault::Version => Cause::HttpVersion,
            Fault::TransferCoding => Cause::TransferCoding,
        };
        Self::because(cause, &why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_have_names_of_their_own_and_error_statuses() {
        let mut names: Vec<_> = Cause::ALL.iter().map(|cause| cause.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Cause::ALL.len());
        assert!(Cause::ALL.iter().all(|cause| cause.status().as_u16() >= 400));
        assert!(Cause::ALL.iter().enumerate().all(|(i, cause)| *cause as usize == i));
    }

    #[test]
    fn a_failure_says_what_and_how_often_and_not_where() {
        let failure = Failure { attempts: 3, ..Failure::new(Cause::ConnectRefused).of("log") };
        let json: serde_json::Value = serde_json::from_str(&failure.to_json()).unwrap();
        assert_eq!(json["status"], 502);
        assert_eq!(json["cause"], "connect-refused");
        assert_eq!(json["type"], "urn:hubspoke:problem:connect-refused");
        assert_eq!(json["attempts"], 3);
        assert_eq!(json["service"], "log");
        assert_eq!(Failure::new(Cause::NoInstance).retry_after(), Some(1));
        assert_eq!(failure.retry_after(), None);
    }
}
