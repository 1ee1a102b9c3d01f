//! Error replies: problem documents ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)). Every error reply of every
//! Hubspoke process is one, with `type` naming the cause as `urn:hubspoke:problem:CAUSE`.
//!
//! ```json
//! {"type": "urn:hubspoke:problem:no-such-service", "title": "Not Found", "status": 404,
//!  "detail": "there is no service named \"greeter\""}
//! ```
//!
//! Programs decide by `type` or by the status; `detail` is for people and may change. [`ProblemType`] lists every
//! cause. `about:blank` means that there is no cause beyond the status.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

/// The media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// `type` of a problem that has no cause beyond its status.
pub const ABOUT_BLANK: &str = "about:blank";

/// A problem document, with extension members of the type `M`.
///
/// Reading is lenient, as RFC 9457 asks: members that are missing or have the wrong type get their default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemDocument<M = ()> {
    /// A URI that names the cause: [`ProblemType::urn`] or [`ABOUT_BLANK`].
    #[serde(rename = "type", default = "about_blank", deserialize_with = "lenient_type")]
    pub problem_type: String,
    /// The reason phrase of `status`.
    #[serde(default, deserialize_with = "lenient")]
    pub title: String,
    /// The HTTP status, repeated from the head of the reply.
    #[serde(default, deserialize_with = "lenient")]
    pub status: u16,
    /// What went wrong, for people.
    #[serde(default, deserialize_with = "lenient")]
    pub detail: String,
    /// Extension members, beside the others.
    #[serde(flatten)]
    pub members: M,
}

fn about_blank() -> String {
    ABOUT_BLANK.to_owned()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    Valid(T),
    Invalid(IgnoredAny),
}

/// A value, or the default in place of one of the wrong type.
pub(crate) fn lenient<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    de: D,
) -> Result<T, D::Error> {
    Ok(match Lenient::deserialize(de)? {
        Lenient::Valid(value) => value,
        Lenient::Invalid(IgnoredAny) => T::default(),
    })
}

fn lenient_type<'de, D: Deserializer<'de>>(de: D) -> Result<String, D::Error> {
    let uri: String = lenient(de)?;
    Ok(if uri.is_empty() { about_blank() } else { uri })
}

/// Declares [`ProblemType`]: per row the meaning, the variant, its word in the URN and its status.
macro_rules! problem_types {
    ($(#[doc = $meaning:literal] $variant:ident = $name:literal, $status:literal;)*) => {
        /// The cause of a problem. Each has one word, one status and one meaning, whichever service reports it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ProblemType {
            $(
                #[doc = concat!("`urn:hubspoke:problem:", $name, "`, ", $status, ".", $meaning)]
                $variant,
            )*
        }

        impl ProblemType {
            /// Every cause.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The URI in `type`: `urn:hubspoke:problem:` and the [name](Self::name).
            pub const fn urn(self) -> &'static str {
                match self { $(Self::$variant => concat!("urn:hubspoke:problem:", $name),)* }
            }

            /// The cause as one word of lower-case letters and hyphens.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The HTTP status that it comes with.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// What it means: one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning.trim_ascii(),)* }
            }
        }
    };
}

problem_types! {
    /// The request is invalid; `detail` names the part.
    BadRequest = "bad-request", 400;
    /// The request's head or body framing is malformed or ambiguous.
    BadFraming = "bad-framing", 400;
    /// The request target is invalid or ambiguous.
    BadTarget = "bad-target", 400;
    /// The request has no `Host`, several, or an invalid one.
    BadHost = "bad-host", 400;
    /// The body is malformed, was cut off, or is not what its `Content-Encoding` says.
    BadBody = "bad-body", 400;
    /// A header has an invalid value.
    InvalidHeader = "invalid-header", 400;
    /// The query string has an invalid parameter.
    InvalidQuery = "invalid-query", 400;
    /// The body is not valid JSON.
    InvalidJson = "invalid-json", 400;
    /// The body is not a valid OTLP log export.
    InvalidOtlp = "invalid-otlp", 400;
    /// The log entry is empty.
    EmptyEntry = "empty-entry", 400;
    /// No entry of the batch is valid; `failed` lists the first ones.
    NoValidEntry = "no-valid-entry", 400;
    /// The bearer token is missing, unknown, revoked or expired.
    InvalidToken = "invalid-token", 401;
    /// The push key that the member registered with is missing or wrong.
    InvalidPushKey = "invalid-push-key", 401;
    /// A page of another site sent the request.
    CrossSite = "cross-site", 403;
    /// The token is for something else: another service's name, or another role.
    NotPermitted = "not-permitted", 403;
    /// The address is outside the networks that may register.
    AddressNotAllowed = "address-not-allowed", 403;
    /// Nothing is served at this path.
    NotFound = "not-found", 404;
    /// No service has this name, or it is not public.
    NoSuchService = "no-such-service", 404;
    /// No instance of the service has this address or `Id`.
    NoSuchInstance = "no-such-instance", 404;
    /// The path does not support the method; see `Allow`.
    MethodNotAllowed = "method-not-allowed", 405;
    /// The request arrived too slowly.
    RequestTimeout = "request-timeout", 408;
    /// A later run of the same instance is registered.
    OlderStart = "older-start", 409;
    /// The body is longer than the limit.
    BodyTooLarge = "body-too-large", 413;
    /// The log entry is longer than the limit.
    EntryTooLong = "entry-too-long", 413;
    /// The batch has more entries than the limit.
    TooManyEntries = "too-many-entries", 413;
    /// The request target is longer than the limit.
    TargetTooLong = "target-too-long", 414;
    /// The `Content-Type` is not supported here.
    UnsupportedMediaType = "unsupported-media-type", 415;
    /// The `Content-Encoding` is not supported here.
    UnsupportedEncoding = "unsupported-encoding", 415;
    /// The body is JSON, but does not have the expected shape.
    InvalidBody = "invalid-body", 422;
    /// The registration breaks a rule or a limit; `detail` names the field.
    InvalidRegistration = "invalid-registration", 422;
    /// A service filter has an invalid name, or there are too many filters.
    InvalidFilter = "invalid-filter", 422;
    /// This sender has used the idempotency key for another content.
    KeyReused = "key-reused", 422;
    /// Too many requests in a short time.
    RateLimited = "rate-limited", 429;
    /// Too many requests of the client are in flight.
    ClientOverloaded = "client-overloaded", 429;
    /// The service has as many instances as the registry allows.
    TooManyInstances = "too-many-instances", 429;
    /// The catalogue has as many services as the registry allows.
    TooManyServices = "too-many-services", 429;
    /// As many clients as allowed follow this stream of events already.
    TooManyStreams = "too-many-streams", 429;
    /// The request is for a host name that is not this service's.
    UnknownHost = "unknown-host", 421;
    /// The request's head is longer than the limit.
    HeadTooLarge = "head-too-large", 431;
    /// A bug; its cause is in the service's own log.
    InternalError = "internal-error", 500;
    /// The request uses a transfer coding other than chunked.
    TransferCoding = "transfer-coding", 501;
    /// The instance refused the connection.
    ConnectRefused = "connect-refused", 502;
    /// The instance could not be reached.
    ConnectFailed = "connect-failed", 502;
    /// The instance closed the connection before it replied.
    ConnectionBroken = "connection-broken", 502;
    /// The instance's reply is not valid HTTP.
    BadReply = "bad-reply", 502;
    /// The process has not finished starting, or a dependency is missing.
    NotReady = "not-ready", 503;
    /// The service has no instance.
    NoInstance = "no-instance", 503;
    /// The service has too much work in progress.
    Overloaded = "overloaded", 503;
    /// The query searched for longer than the limit.
    QueryTimeout = "query-timeout", 503;
    /// The process has as many connections as it allows.
    TooManyConnections = "too-many-connections", 503;
    /// The registry can't write to the store that it shares with others.
    StoreUnavailable = "store-unavailable", 503;
    /// The disk can't be written.
    DiskFailed = "disk-failed", 503;
    /// The service is shutting down.
    Stopping = "stopping", 503;
    /// No log instance stored the entry of this request.
    NotLogged = "not-logged", 503;
    /// The visit has no number, because the counter could not be saved.
    NotCounted = "not-counted", 503;
    /// The instance could not be reached in time.
    ConnectTimeout = "connect-timeout", 504;
    /// The instance did not reply in time.
    ReplyTimeout = "reply-timeout", 504;
    /// The request uses a version of HTTP other than 1.0, 1.1 and 2.
    HttpVersion = "http-version", 505;
    /// The disk is full.
    DiskFull = "disk-full", 507;
    /// The request has passed through this gateway before; see `Via`.
    Loop = "loop", 508;
}
