//! Error replies as problem documents (RFC 9457). `detail` tells the caller what to correct. Causes on our side are
//! logged where they are handled and never sent.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hubspoke_client::log::LogError;
use hubspoke_protocol::problem::{ABOUT_BLANK, PROBLEM_JSON, ProblemDocument, ProblemType};
use serde_json::{Map, Value};

/// Longest text of a framework's rejection that becomes the `detail`, in bytes.
const MAX_REJECTION: usize = 4096;

/// The causes of the framework's rejections, by their status.
const REJECTIONS: [ProblemType; 6] = [
    ProblemType::BadRequest,
    ProblemType::NotFound,
    ProblemType::MethodNotAllowed,
    ProblemType::BodyTooLarge,
    ProblemType::UnsupportedMediaType,
    ProblemType::InternalError,
];

/// An error response: a [`ProblemDocument`] and the headers that go with it.
///
/// ```
/// use hubspoke_chassis::{Problem, ProblemType};
///
/// let problem = Problem::new(ProblemType::NoSuchService, "no service is named \"greeter\"").with("service", "greeter");
/// assert_eq!(problem.status(), 404);
/// assert_eq!(
///     problem.to_json(),
///     r#"{"type":"urn:hubspoke:problem:no-such-service","title":"Not Found","status":404,"#.to_owned()
///         + r#""detail":"no service is named \"greeter\"","service":"greeter"}"#
/// );
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    urn: &'static str,
    status: StatusCode,
    detail: String,
    retry_after: Option<u32>,
    members: Map<String, Value>,
}

impl Problem {
    /// A problem with a cause that the platform defines, and its status. `detail` is for people.
    pub fn new(cause: ProblemType, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(cause.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { urn: cause.urn(), ..Self::from_status(status, detail) }
    }

    /// A problem without a cause beyond its status (`about:blank`): for services outside of the platform.
    pub fn from_status(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { urn: ABOUT_BLANK, status, detail: detail.into(), retry_after: None, members: Map::new() }
    }

    /// Replaces the status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Sets `Retry-After`, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Adds a hint to the detail.
    #[must_use]
    pub fn hint(mut self, hint: &str) -> Self {
        self.detail = format!("{}; {hint}", self.detail);
        self
    }

    /// Adds an extension member for programs: `cause`, `attempts`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.members.insert(key.to_owned(), value.into());
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The document as JSON text, for servers without axum.
    pub fn to_json(&self) -> String {
        let document = ProblemDocument {
            problem_type: self.urn.to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            members: &self.members,
        };
        serde_json::to_string(&document).unwrap_or_default() // maps with text keys always serialize
    }
}

/// For handlers that log with `?`. The cause is logged here, not sent.
impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        tracing::warn!(error = &error as &dyn std::error::Error, "can't send a log entry");
        Self::new(ProblemType::NotLogged, error.to_string()).retry_after(1)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response =
            (self.status, [(header::CONTENT_TYPE, PROBLEM_JSON)], self.to_json()).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.urn == ProblemType::InvalidToken.urn() {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Turns the framework's rejections (no such path, wrong method, body too large, …) into problem documents. Their other
/// headers stay, `Allow` among them.
pub(crate) async fn document(path: &str, response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_plain = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !is_error || !is_plain {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = to_bytes(body, MAX_REJECTION).await.unwrap_or_default();
    let detail = match (status, text.is_empty()) {
        (StatusCode::NOT_FOUND, true) => format!("nothing is served at {path}"),
        (StatusCode::METHOD_NOT_ALLOWED, true) => {
            "the method is not supported here; see the Allow header".to_owned()
        }
        (_, true) => status.canonical_reason().unwrap_or("error").to_owned(),
        (_, false) => String::from_utf8_lossy(&text).into_owned(),
    };
    let problem = match REJECTIONS.iter().find(|cause| cause.status() == status.as_u16()) {
        Some(&cause) => Problem::new(cause, detail),
        None => Problem::from_status(status, detail),
    };
    let (problem, body) = problem.into_response().into_parts();
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    parts.headers.extend(problem.headers);
    Response::from_parts(parts, body)
}

/// The response after a panic in a handler. The message is logged, not sent.
pub(crate) fn panicked(panic: Box<dyn std::any::Any + Send>) -> http::Response<Body> {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(panic = text, "a handler panicked");
    Problem::new(ProblemType::InternalError, "an internal error; it has been logged").into_response()
}
