//! The request that instances get, over HTTP/1 or HTTP/2.

use std::time::Duration;

use http::header::{EXPECT, HOST, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Uri, Version};
use hubspoke_http1::ClientRequest;
use tokio::sync::oneshot;

use crate::headers::{self, HopOptions};
use crate::replay::{ReplayBody, ReplayState};

/// How long an instance may leave `Expect: 100-continue` unanswered before it gets the body (RFC 9110, 10.1.1).
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// A request that is ready to be sent to an instance, any number of times.
#[derive(Clone)]
pub(super) struct UpstreamRequest {
    pub(super) method: Method,
    pub(super) path: PathAndQuery,
    pub(super) headers: HeaderMap,
    /// `None` if it has no body.
    pub(super) body: Option<ReplayState>,
    /// The client's.
    pub(super) version: Version,
    pub(super) options: HopOptions,
}

impl UpstreamRequest {
    /// The request for one HTTP/1 attempt.
    pub(super) fn for_h1(&mut self, upgrade: bool) -> ClientRequest<'_, ReplayBody> {
        let on_continue = self.expect_continue();
        ClientRequest {
            method: &self.method,
            path: &self.path,
            headers: &self.headers,
            body: self.body.as_ref().map(ReplayState::body),
            on_continue,
            upgrade,
        }
    }

    /// If the client waits for `100 Continue`, asks the instance for it and holds the body back until the returned
    /// sender is used or dropped, or the timeout is over.
    fn expect_continue(&mut self) -> Option<oneshot::Sender<()>> {
        let body = self.body.as_ref().filter(|_| self.options.expect_continue)?;
        self.headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
        let (on_continue, continued) = oneshot::channel::<()>();
        body.hold_back(async move {
            let _ = tokio::time::timeout(CONTINUE_TIMEOUT, continued).await; // the body is sent in any case
        });
        Some(on_continue)
    }

    /// The request for one HTTP/2 attempt, its body, and what receives a message when the instance answers
    /// `100 Continue`.
    pub(super) fn into_h2(mut self) -> (Request<()>, Option<ReplayBody>, Option<oneshot::Sender<()>>) {
        let on_continue = self.expect_continue();
        let host = self.headers.remove(HOST);
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = host.as_ref().and_then(|host| host.as_bytes().try_into().ok());
        uri.path_and_query = Some(self.path);
        let mut request = Request::new(());
        *request.method_mut() = self.method;
        if let Ok(uri) = Uri::from_parts(uri) {
            *request.uri_mut() = uri;
        }
        headers::for_h2(&mut self.headers);
        *request.headers_mut() = self.headers;
        *request.version_mut() = Version::HTTP_2;
        (request, self.body.as_ref().map(ReplayState::body), on_continue)
    }
}
