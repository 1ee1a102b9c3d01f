//! One request from its head to the last byte of its response: checks, route, attempts, response.
//!
//! Every refusal and every failure is a [`RequestFailure`], which becomes a problem document in one place.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, LOCATION, RETRY_AFTER, VIA,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Version, request};
use hubspoke_http1::content_length;
use rand::RngExt;
use tracing::{Instrument, Span};

use self::active::ActiveRequest;
use self::attempt_context::AttemptContext;
use self::attempts::RoutedRequest;
use self::forward_auth::{AuthQuery, Refusal};
use self::response_body::{Relay, ResponseBody};
use self::upstream_request::UpstreamRequest;
use crate::client_body::ClientBody;
use crate::client_conn::ClientConn;
use crate::edge;
use crate::error::{Cause, RequestFailure};
use crate::extras::{ResponseExtras, index};
use crate::headers::{self, HUB_INSTANCE, Hop};
use crate::https::NoCertForHost;
use crate::memory::{self, SMALL_HEAD};
use crate::replay::{BodyLimits, BodyPace, ReplayState};
use crate::route::{self, RequestTarget};
use crate::upstream::UpstreamService;

mod active;
mod attempt;
mod attempt_context;
mod attempt_h2;
mod attempts;
mod forward_auth;
pub(crate) mod record;
pub(crate) mod response_body;
mod sticky;
pub(crate) mod tunnel;
mod upstream_request;
mod waiting;

/// Answers one request. All synchronous work is done before the future is created, which keeps the future small.
pub(crate) fn handle(
    client: Arc<ClientConn>,
    request: Request<ClientBody>,
) -> impl Future<Output = Response<ResponseBody>> + Send {
    let version = request.version();
    let mut active = ActiveRequest::begin(&client, &request);
    let span = active.span().clone();
    let mut next = match span.in_scope(|| prepare(&client, request, &mut active)) {
        Ok(Prepared::Forward(routed, None)) => Next::Forward(routed, active),
        Ok(Prepared::Forward(routed, Some(query))) => Next::Ask(Box::new((routed, query, active))),
        Ok(Prepared::Own(mut response)) => {
            active.answered(response.status().as_u16());
            if let Some(extras) = active.take_extras() {
                extras.allow(response.headers_mut());
            }
            Next::Respond(own_response(&client, response.map(|text| ResponseBody::text(text, active))))
        }
        Err(failure) => Next::Respond(own_response(&client, problem_response(&failure, active))),
    };
    async move {
        let mut response = match next {
            Next::Forward(ref mut routed, mut active) => {
                let result = attempts::run(routed, &mut active).instrument(span).await;
                outcome(&client, result, active)
            }
            // Boxed: most requests don't need its memory.
            Next::Ask(asked) => Box::pin(ask_first(&client, asked, span)).await,
            Next::Respond(response) => response,
        };
        let headers = response.headers_mut();
        if let (Some(https), true) = (&client.gateway.https, client.tls) {
            https.set_policy(headers);
        }
        if version != Version::HTTP_2 && client.gateway.is_draining() && !headers.contains_key(CONNECTION) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

enum Next {
    Forward(RoutedRequest, Box<ActiveRequest>),
    Ask(Box<(RoutedRequest, Box<AuthQuery>, Box<ActiveRequest>)>),
    Respond(Response<ResponseBody>),
}

/// Asks another service whether the request may pass, and then sends it to its own.
async fn ask_first(
    client: &Arc<ClientConn>,
    asked: Box<(RoutedRequest, Box<AuthQuery>, Box<ActiveRequest>)>,
    span: Span,
) -> Response<ResponseBody> {
    let (mut routed, query, mut active) = *asked;
    match forward_auth::ask(client, &mut routed, query).instrument(span.clone()).await {
        Ok(()) => {
            let result = attempts::run(&mut routed, &mut active).instrument(span).await;
            outcome(client, result, active)
        }
        Err(Refusal::Failed(failure)) => own_response(client, problem_response(&failure, active)),
        Err(Refusal::Answered(answer)) => refusal_response(*answer, active),
    }
}

/// The response of an instance, or the gateway's own if none has responded.
fn outcome(
    client: &ClientConn,
    result: Result<Box<Relay>, RequestFailure>,
    active: Box<ActiveRequest>,
) -> Response<ResponseBody> {
    match result {
        Ok(relay) => attempt_context::into_response(relay, active),
        Err(failure) => own_response(client, problem_response(&failure, active)),
    }
}

/// The answer of the service that was asked whether the request may pass.
fn refusal_response(mut answer: Response<Bytes>, mut active: Box<ActiveRequest>) -> Response<ResponseBody> {
    active.answered(answer.status().as_u16());
    if let Some(extras) = active.take_extras() {
        extras.allow(answer.headers_mut());
    }
    answer.map(|body| ResponseBody::text(body, active))
}

/// A request that passed all checks.
enum Prepared {
    /// To be sent to an instance, if it may pass.
    Forward(RoutedRequest, Option<Box<AuthQuery>>),
    /// Answered by the gateway itself.
    Own(Response<String>),
}

/// Marks a response as the gateway's own.
fn own_response(client: &ClientConn, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response.headers_mut().insert(HUB_INSTANCE, client.gateway.id.clone());
    response
}

fn problem_response(failure: &RequestFailure, mut active: Box<ActiveRequest>) -> Response<ResponseBody> {
    let status = failure.cause.status();
    active.failed(failure);
    let extras = active.take_extras();
    let mut response = Response::new(ResponseBody::text(failure.to_json(), active));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Some(extras) = extras {
        extras.allow(headers);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(hubspoke_protocol::problem::PROBLEM_JSON));
    if let Some(seconds) = failure.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static(edge::ALLOW));
    }
    response
}

/// Checks a request, finds its service and rewrites its fields.
fn prepare(
    client: &Arc<ClientConn>,
    request: Request<ClientBody>,
    active: &mut ActiveRequest,
) -> Result<Prepared, RequestFailure> {
    let gateway = &client.gateway;
    let (mut parts, body) = request.into_parts();
    edge::check_method(&parts.method)?;
    if parts.version == Version::HTTP_2 {
        edge::check_h2(&parts, gateway.config.limits.head())?;
    }
    let target = route::target(&parts.uri)?;
    let (name, path, authority) = match target {
        RequestTarget::Asterisk => return asterisk(&parts),
        RequestTarget::Path { service, path, authority } => (service, path, authority),
    };
    let host = edge::host(&parts, authority)?;
    let host_is_header = host.is_some() && authority.is_none() && parts.version != Version::HTTP_2;
    if parts.headers.contains_key(VIA) && headers::is_loop(&parts.headers, &gateway.vias.pseudonym) {
        return Err(Cause::Loop.into());
    }
    if !gateway.rates.admit(active.caller(), active.began()) {
        return Err(Cause::RateLimited.into());
    }
    if let Some(answer) = gateway.https.as_ref().and_then(|https| https.challenge_answer(path.path)) {
        return Ok(Prepared::Own(Response::new(answer)));
    }
    if let (Some(https), false) = (&gateway.https, client.tls) {
        let target = parts.uri.path_and_query();
        match https.redirect(host.as_ref(), target, &parts.headers, client.trusted) {
            Ok(None) => {}
            Ok(Some(location)) => return Ok(Prepared::Own(redirect(location))),
            Err(NoCertForHost) => return Err(Cause::UnknownHost.into()),
        }
    }
    let table = gateway.table.load();
    let named = host.as_ref().and_then(|host| table.by_host(host.as_bytes()));
    let by_host = named.is_some();
    let Some(service) = named.or_else(|| table.service(name)) else {
        if gateway.config.index && path.path == "/" {
            let below = host.as_ref().filter(|host| table.is_domain(host.as_bytes()));
            let below = below.and_then(|host| host.to_str().ok());
            return Ok(Prepared::Own(index::response(&parts.method, table.index(), below)));
        }
        let cause = if table.is_ready() { Cause::NoSuchService } else { Cause::NotReady };
        return Err(cause.into());
    };
    let service = service.clone();
    drop(table);
    let settings = service.settings.clone();
    if let Some(extras) = &settings.extras {
        if let Some(answer) = extras.answer(&parts, by_host) {
            active.routed(service.clone(), service.admit());
            return Ok(Prepared::Own(answer.map(|()| String::new())));
        }
        active.has_extras(ResponseExtras::of(extras, &parts));
    }
    let mut path_and_query =
        parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let prefix = service.prefix().filter(|_| !by_host);
    if let Some(prefix) = prefix {
        path_and_query = headers::prefix::strip(&path_and_query, prefix);
    }
    if (by_host || prefix.is_some()) && service.is_guarded() && route::is_for_members(path_and_query.path()) {
        return Err(RequestFailure::for_members().for_service(&service.name));
    }
    if path.encoded_slash && !settings.pass_encoded_slash {
        return Err(RequestFailure::from(route::BadTarget::EncodedSlash).for_service(&service.name));
    }
    let admission = service.admit();
    let refuse = |cause: Cause| Err(RequestFailure::new(cause).for_service(&service.name));
    let overloaded = admission.is_none();
    active.routed(service.clone(), admission);
    if overloaded {
        return refuse(Cause::Overloaded);
    }
    match client.admit(active.caller(), service.in_flight(), settings.in_flight) {
        Ok(slot) => active.admitted(slot),
        Err(cause) => return refuse(cause),
    }
    let head_size = memory::head_size(&parts.headers, &parts.uri);
    if head_size > SMALL_HEAD {
        let charge = gateway.memory.heads.charge();
        if !charge.grow(head_size) {
            return refuse(Cause::Overloaded);
        }
        active.has_large_head(charge);
    }
    if settings.body_size > 0 && declared_length(&parts.headers).is_some_and(|n| n > settings.body_size) {
        return refuse(Cause::BodyTooLarge);
    }
    let key = sticky::key(settings.sticky.as_ref(), &parts.headers);
    let hop = Hop {
        client: &client.ip_value,
        trusted: client.trusted,
        tls: client.tls,
        client_cert: gateway
            .https
            .as_ref()
            .filter(|https| https.asks_for_certs)
            .map(|_| client.client_cert.get()),
        may_upgrade: parts.version == Version::HTTP_11,
        host: host.as_ref(),
        prefix,
        via: gateway.vias.of(parts.version),
    };
    let options = headers::request(&mut parts.headers, &hop, || {
        let mut rng = rand::rng();
        headers::new_trace(rng.random(), rng.random())
    });
    if !host_is_header && let Some(host) = host.or_else(|| HeaderValue::from_str(&service.name).ok()) {
        parts.headers.insert(HOST, host);
    }
    let auth = settings.extras.as_ref().and_then(|extras| AuthQuery::of(extras, &parts));
    let body = (!body.is_end_stream()).then(|| {
        ReplayState::new(
            body,
            BodyLimits {
                size: settings.body_size,
                pace: (!is_stream(&parts, &service))
                    .then_some(BodyPace { rate: settings.body_rate, idle: settings.idle }),
                replay: usize::try_from(gateway.config.retry.replay.as_u64()).unwrap_or(usize::MAX),
            },
            gateway.memory.replay.charge(),
        )
    });
    active.prepared(&parts.headers, body.clone());
    let request = UpstreamRequest {
        method: parts.method,
        path: path_and_query,
        headers: parts.headers,
        body,
        version: parts.version,
        options,
    };
    let deadline = active.began() + settings.total;
    let context = AttemptContext {
        client: client.clone(),
        settings,
        request,
        is_retry: false,
        is_own: false,
        is_stripped: prefix.is_some(),
        new_connection: false,
        deadline,
    };
    Ok(Prepared::Forward(RoutedRequest { service, key, context }, auth))
}

/// A permanent redirect that keeps method and body.
fn redirect(location: HeaderValue) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    response
}

/// Answers `OPTIONS *`, which is for the server itself.
fn asterisk(parts: &request::Parts) -> Result<Prepared, RequestFailure> {
    if parts.method != http::Method::OPTIONS {
        return Err(route::BadTarget::Form.into());
    }
    edge::host(parts, None)?;
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(edge::ALLOW));
    Ok(Prepared::Own(response))
}

/// Whether the client may be silent for any time: a gRPC stream. HTTP/2 only, since pings detect a dead client there,
/// and only to a service that speaks it too: the type of a body is what the client claims.
fn is_stream(parts: &request::Parts, service: &UpstreamService) -> bool {
    parts.version == Version::HTTP_2 && headers::is_grpc(&parts.headers) && service.speaks_h2()
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    content_length(headers.get(CONTENT_LENGTH)?.as_bytes())
}
