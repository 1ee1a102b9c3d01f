//! Another service decides whether a request may pass. It is asked with the request's fields and gets nothing of its body;
//! a 2xx lets the request pass, and any other answer goes to the client.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response, Uri, Version, request};
use http_body::Body;
use tokio::time::timeout_at;

use super::active::ActiveRequest;
use super::attempt_context::{self, AttemptContext};
use super::attempts::{self, RoutedRequest};
use super::response_body::ResponseBody;
use super::sticky;
use super::upstream_request::UpstreamRequest;
use crate::client_conn::ClientConn;
use crate::error::{Cause, RequestFailure};
use crate::extras::{AuthPolicy, Extras};
use crate::headers::HopOptions;

/// The most of an answer's body that goes to the client, in bytes: a page with a form.
const MAX_ANSWER: usize = 64 << 10;

/// The question about one request.
pub(super) struct AuthQuery {
    extras: Arc<Extras>,
    headers: HeaderMap,
}

/// Why a request does not pass.
pub(super) enum Refusal {
    /// The service that is asked says so.
    Answered(Box<Response<Bytes>>),
    /// It has no answer.
    Failed(Box<RequestFailure>),
}

impl From<RequestFailure> for Refusal {
    fn from(failure: RequestFailure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl AuthQuery {
    /// The question about a request whose fields are those that its service will get.
    pub(super) fn of(extras: &Arc<Extras>, parts: &request::Parts) -> Option<Box<Self>> {
        let headers = extras.auth.as_ref()?.ask(&parts.headers, &parts.method, &parts.uri);
        Some(Box::new(Self { extras: extras.clone(), headers }))
    }
}

/// Asks, and gives the request the chosen fields of the answer if it may pass.
pub(super) async fn ask(
    client: &Arc<ClientConn>,
    routed: &mut RoutedRequest,
    query: Box<AuthQuery>,
) -> Result<(), Refusal> {
    let AuthQuery { extras, headers } = *query;
    let Some(policy) = &extras.auth else { return Ok(()) };
    let deadline = tokio::time::Instant::now() + policy.timeout;
    let too_late = || RequestFailure::new(Cause::ReplyTimeout).for_service(&policy.service);
    let answer = timeout_at(deadline, answer(client, policy, headers)).await.map_err(|_| too_late())??;
    let (mut parts, body) = answer.into_parts();
    if parts.status.is_success() {
        policy.copy(&parts.headers, &mut routed.context.request.headers);
        // Read to its end, so that the connection can be used again; if that is far, it is closed instead.
        let _ = timeout_at(deadline, read(body)).await;
        return Ok(());
    }
    let body = timeout_at(deadline, read(body)).await.map_err(|_| too_late())?;
    let too_long = || RequestFailure::new(Cause::BadReply).for_service(&policy.service);
    parts.headers.remove(CONTENT_LENGTH);
    Err(Refusal::Answered(Box::new(Response::from_parts(parts, body.ok_or_else(too_long)?))))
}

/// The answer of an instance, picked as for any other request.
async fn answer(
    client: &Arc<ClientConn>,
    policy: &AuthPolicy,
    headers: HeaderMap,
) -> Result<Response<ResponseBody>, RequestFailure> {
    let fails = |cause: Cause| RequestFailure::new(cause).for_service(&policy.service);
    let service = client.gateway.table.load().any_service(&policy.service).cloned();
    let service = service.ok_or_else(|| fails(Cause::NoInstance))?;
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from(policy.path.clone());
    *request.headers_mut() = headers;
    let mut active = ActiveRequest::begin(client, &request);
    let admission = service.admit();
    let is_overloaded = admission.is_none();
    active.routed(service.clone(), admission);
    if is_overloaded {
        let failure = fails(Cause::Overloaded);
        active.failed(&failure);
        return Err(failure);
    }
    let (parts, ()) = request.into_parts();
    active.prepared(&parts.headers, None);
    let settings = service.settings.clone();
    let context = AttemptContext {
        client: client.clone(),
        request: UpstreamRequest {
            method: Method::GET,
            path: policy.path.clone(),
            headers: parts.headers,
            body: None,
            version: Version::HTTP_11,
            options: HopOptions::default(),
        },
        is_retry: false,
        is_own: true,
        is_stripped: false,
        new_connection: false,
        deadline: active.began() + settings.total,
        settings,
    };
    let key = sticky::key(context.settings.sticky.as_ref(), &context.request.headers);
    let mut routed = RoutedRequest { service, key, context };
    match attempts::run(&mut routed, &mut active).await {
        Ok(relay) => Ok(attempt_context::into_response(relay, active)),
        Err(failure) => {
            active.failed(&failure);
            Err(failure)
        }
    }
}

/// A body of up to [`MAX_ANSWER`]; `None` if it is longer, or breaks off.
async fn read(mut body: ResponseBody) -> Option<Bytes> {
    let mut read = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        if read.len() + data.len() > MAX_ANSWER {
            return None;
        }
        read.extend_from_slice(&data);
    }
    Some(read.freeze())
}
