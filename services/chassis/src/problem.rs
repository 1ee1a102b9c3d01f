//! Error replies: problem documents (RFC 9457). What the caller can mend is said; causes on our side go to the log
//! by whoever handles them, never into a reply.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

/// The media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Longest text of a framework's own rejection that is taken over as `detail`, in bytes.
const MAX_REJECTION: usize = 4096;

/// An error reply: `type`, `title`, `status`, `detail` and members of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    retry_after: Option<u32>,
    members: Map<String, Value>,
}

impl Problem {
    /// A problem with a status and, for people, what was wrong.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), retry_after: None, members: Map::new() }
    }

    /// Says when to try again, in seconds (`Retry-After`).
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Adds a member of its own for machines: `cause`, `attempts`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.members.insert(key.to_owned(), value.into());
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What was wrong, for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The document as JSON text, for servers that don't speak axum.
    pub fn to_json(&self) -> String {
        let mut document = Map::new();
        document.insert("type".into(), "about:blank".into());
        document.insert("title".into(), self.status.canonical_reason().unwrap_or("Error").into());
        document.insert("status".into(), self.status.as_u16().into());
        document.insert("detail".into(), self.detail.as_str().into());
        document.extend(self.members.clone());
        Value::Object(document).to_string()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response =
            (self.status, [(header::CONTENT_TYPE, PROBLEM_JSON)], self.to_json()).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The reply to a request for `path`, with the framework's own rejections (no such path, wrong method, body too
/// large, …) as problem documents. Their other headers stay, `Allow` among them.
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
        (StatusCode::METHOD_NOT_ALLOWED, true) => "that method is not served here; see Allow".to_owned(),
        (_, true) => status.canonical_reason().unwrap_or("error").to_owned(),
        (_, false) => String::from_utf8_lossy(&text).into_owned(),
    };
    let (problem, body) = Problem::new(status, detail).into_response().into_parts();
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    parts.headers.extend(problem.headers);
    Response::from_parts(parts, body)
}

/// The reply where a handler panicked: generic, since the cause is a bug of ours.
pub(crate) fn panicked(panic: Box<dyn std::any::Any + Send>) -> http::Response<Body> {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(panic = text, "a handler panicked");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "an internal error; it has been logged").into_response()
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::{DefaultBodyLimit, Request};
    use axum::routing::post;
    use tower::ServiceExt;

    use super::*;

    async fn reply(method: &str, path: &str, body: &str) -> (StatusCode, http::HeaderMap, Value) {
        let app = Router::new()
            .route("/only-post", post(|body: String| async move { body }))
            .route("/own", post(|| async { Problem::new(StatusCode::CONFLICT, "no").with("cause", "test") }))
            .layer(DefaultBodyLimit::max(8));
        let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
        let reply = app.oneshot(request).await.unwrap();
        let (parts, body) = document(path, reply).await.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        (parts.status, parts.headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    #[tokio::test]
    async fn the_frameworks_rejections_become_problem_documents() {
        for (method, path, body, status) in [
            ("POST", "/nowhere", "", 404),
            ("GET", "/only-post", "", 405),
            ("POST", "/only-post", "more than eight", 413),
        ] {
            let (got, headers, problem) = reply(method, path, body).await;
            assert_eq!(got.as_u16(), status, "{method} {path}");
            assert_eq!(headers[header::CONTENT_TYPE], PROBLEM_JSON, "{method} {path}");
            assert_eq!(problem["status"], status);
            assert!(!problem["detail"].as_str().unwrap().is_empty());
            assert_eq!(headers.contains_key(header::ALLOW), status == 405);
        }
    }

    #[tokio::test]
    async fn own_problems_and_good_replies_pass_as_they_are() {
        let (_, _, problem) = reply("POST", "/own", "").await;
        assert_eq!((&problem["detail"], &problem["cause"]), (&"no".into(), &"test".into()));
        let (status, headers, _) = reply("POST", "/only-post", "short").await;
        assert_eq!(status, StatusCode::OK);
        assert_ne!(headers[header::CONTENT_TYPE], PROBLEM_JSON);
    }
}
