//! One request from its head to the last byte of its reply: checks, route, attempts, reply.
//!
//! All that is refused or fails becomes a [`Failure`] and, in one place, a problem document.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, VIA};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Version, request};
use rand::RngExt;
use tracing::Instrument;

use self::attempt::{Outgoing, Stage};
use self::attempts::Errand;
use self::client_body::ClientBody;
use self::record::Record;
use self::reply::Reply;
use self::upload::{Pace, Rules, Shared};
use crate::client_conn::ClientConn;
use crate::config::Sticky;
use crate::edge;
use crate::error::{Cause, Failure};
use crate::headers::{self, HUB_INSTANCE, Hop};
use crate::http1;
use crate::route::{self, Target};

mod attempt;
mod attempts;
pub(crate) mod client_body;
pub(crate) mod record;
pub(crate) mod reply;
pub(crate) mod tunnel;
pub(crate) mod upload;

/// Answers one request. What needs no waiting is done at once, so that the future is only what waits.
pub(crate) fn handle(
    client: Arc<ClientConn>,
    request: Request<ClientBody>,
) -> impl Future<Output = Response<Reply>> + Send {
    let version = request.version();
    let mut record = Record::begin(&client, &request);
    let span = record.span.clone();
    let mut next = match span.in_scope(|| prepare(&client, request, &mut record)) {
        Ok(Prepared::Ask(errand)) => Next::Ask(errand, record),
        Ok(Prepared::Own(response)) => {
            record.status = response.status().as_u16();
            Next::Reply(named(&client, response.map(|()| Reply::text("", record))))
        }
        Err(failure) => Next::Reply(named(&client, failed(&failure, record))),
    };
    async move {
        let mut response = match next {
            Next::Ask(ref mut errand, mut record) => {
                match attempts::run(errand, &mut record).instrument(span).await {
                    Ok(exchange) => exchange.into_reply(record),
                    Err(failure) => named(&client, failed(&failure, record)),
                }
            }
            Next::Reply(response) => response,
        };
        let headers = response.headers_mut();
        if version != Version::HTTP_2 && client.gateway.is_draining() && !headers.contains_key(CONNECTION) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

enum Next {
    Ask(Errand, Box<Record>),
    Reply(Response<Reply>),
}

/// What comes of a request's head.
enum Prepared {
    /// An instance is asked.
    Ask(Errand),
    /// The gateway itself was asked.
    Own(Response<()>),
}

/// A reply of the gateway's own says so.
fn named(client: &ClientConn, mut response: Response<Reply>) -> Response<Reply> {
    response.headers_mut().insert(HUB_INSTANCE, client.gateway.id.clone());
    response
}

fn failed(failure: &Failure, mut record: Box<Record>) -> Response<Reply> {
    let status = failure.cause.status();
    record.status = status.as_u16();
    record.cause = Some(failure.cause);
    if failure.cause.is_upstream()
        && let Some((service, _)) = &record.service
    {
        tracing::warn!(
            service = %service.name,
            instance = record.upstream.as_ref().map(|upstream| &*upstream.instance().id),
            cause = failure.cause.name(),
            attempts = failure.attempts,
            "no instance replied"
        );
    }
    record.upstream = None;
    let mut response = Response::new(Reply::text(failure.to_json(), record));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(hubspoke_protocol::problem::PROBLEM_JSON));
    if let Some(seconds) = failure.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static(edge::ALLOW));
    }
    response
}

fn prepare(
    client: &Arc<ClientConn>,
    request: Request<ClientBody>,
    record: &mut Record,
) -> Result<Prepared, Failure> {
    let gateway = &client.gateway;
    let (mut parts, body) = request.into_parts();
    edge::check_method(&parts.method)?;
    if parts.version == Version::HTTP_2 {
        edge::check_h2(&parts, gateway.config.limits.head())?;
    }
    let target = route::target(&parts.uri)?;
    let (name, path, authority) = match target {
        Target::Asterisk => return asterisk(&parts),
        Target::Path { service, path, authority } => (service, path, authority),
    };
    let host = edge::host(&parts, authority)?;
    let host_is_header = host.is_some() && authority.is_none() && parts.version != Version::HTTP_2;
    if parts.headers.contains_key(VIA) && headers::is_loop(&parts.headers, &gateway.vias.pseudonym) {
        return Err(Cause::Loop.into());
    }
    if !gateway.rates.admit(client_ip(client, &parts.headers), record.began()) {
        return Err(Cause::RateLimited.into());
    }
    let table = gateway.table.load();
    let Some(service) = table.service(name) else {
        let cause = if table.is_ready() { Cause::NoSuchService } else { Cause::NotReady };
        return Err(cause.into());
    };
    let service = service.clone();
    drop(table);
    let settings = service.settings.clone();
    if path.encoded_slash && !settings.pass_encoded_slash {
        return Err(Failure::from(route::BadTarget::EncodedSlash).of(&service.name));
    }
    let admission = service.admit();
    let refuse = |cause: Cause| Err(Failure::new(cause).of(&service.name));
    let overloaded = admission.is_none();
    record.service = Some((service.clone(), admission));
    if overloaded {
        return refuse(Cause::Overloaded);
    }
    if settings.body_size > 0 && declared_length(&parts.headers).is_some_and(|n| n > settings.body_size) {
        return refuse(Cause::BodyTooLarge);
    }
    let key = sticky_key(settings.sticky.as_ref(), &parts.headers);
    let hop = Hop {
        client: &client.ip_value,
        trusted: client.trusted,
        host: host.as_ref(),
        via: gateway.vias.of(parts.version),
    };
    let asked = headers::request(&mut parts.headers, &hop, || {
        let mut rng = rand::rng();
        headers::new_trace(rng.random(), rng.random())
    });
    record.traced(&parts.headers);
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    if !host_is_header && let Some(host) = host.or_else(|| HeaderValue::from_str(&service.name).ok()) {
        parts.headers.insert(HOST, host);
    }
    let upload = (!body.is_end_stream()).then(|| {
        Shared::new(
            body,
            Rules {
                size: settings.body_size,
                pace: (!is_stream(&parts)).then_some(Pace { rate: settings.body_rate, idle: settings.idle }),
                keep: usize::try_from(gateway.config.retry.replay.as_u64()).unwrap_or(usize::MAX),
            },
        )
    });
    record.upload = upload.clone();
    let outgoing = Outgoing { method: parts.method, path, headers: parts.headers, upload, asked };
    let may_switch = outgoing.asked.upgrade.is_some() && parts.version == Version::HTTP_11;
    let deadline = record.began() + settings.total;
    let stage = Stage { client: client.clone(), settings, outgoing, is_retry: false, fresh: false, deadline };
    Ok(Prepared::Ask(Errand { service, key, may_switch, stage }))
}

/// `OPTIONS *` asks what the server itself can do.
fn asterisk(parts: &request::Parts) -> Result<Prepared, Failure> {
    if parts.method != http::Method::OPTIONS {
        return Err(route::BadTarget::Form.into());
    }
    edge::host(parts, None)?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(edge::ALLOW));
    Ok(Prepared::Own(response))
}

/// Whether silence is part of the request: gRPC's streams. Only HTTP/2 asks its clients whether they still live.
fn is_stream(parts: &request::Parts) -> bool {
    parts.version == Version::HTTP_2 && headers::is_grpc(&parts.headers)
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    http1::length(headers.get(CONTENT_LENGTH)?.as_bytes())
}

/// The address that a request's rate is counted for: behind trusted proxies, the nearest that is none of them.
fn client_ip(client: &ClientConn, headers: &HeaderMap) -> IpAddr {
    let direct = client.addr.ip().to_canonical();
    if !client.trusted {
        return direct;
    }
    let lists: Vec<_> =
        headers.get_all(headers::X_FORWARDED_FOR).iter().filter_map(|list| list.to_str().ok()).collect();
    lists
        .iter()
        .rev()
        .flat_map(|list| list.rsplit(','))
        .map_while(|entry| entry.trim().parse::<IpAddr>().ok())
        .find(|ip| !client.gateway.is_trusted(*ip))
        .unwrap_or(direct)
}

fn sticky_key(sticky: Option<&Sticky>, headers: &HeaderMap) -> Option<Vec<u8>> {
    match sticky? {
        Sticky::Header(name) => headers.get(name).map(|value| value.as_bytes().to_vec()),
        Sticky::Cookie(name) => {
            let all = headers.get_all(http::header::COOKIE).iter().filter_map(|value| value.to_str().ok());
            all.flat_map(|cookies| cookies.split(';'))
                .filter_map(|cookie| cookie.trim().split_once('='))
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_bytes().to_vec())
        }
    }
}
