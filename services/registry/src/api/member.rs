//! The routes for members: register, renew, deregister.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use hubspoke_chassis::rights::Right;
use hubspoke_chassis::server::ConnectionHandle;
use hubspoke_chassis::{Json, Problem};
use hubspoke_protocol::{HUB_WARNING, PushMode};
use serde::Deserialize;

use super::context::Api;
use super::revision::revision_header;
use super::{prefer, registration};
use crate::catalog::{Initiator, InstanceKey, InstanceList, MAX_DETAIL};
use crate::dispatch::RegistrationReply;
use crate::error::invalid;

/// `POST /services`
pub(super) async fn register(
    State(api): State<Arc<Api>>,
    Extension(connection): Extension<ConnectionHandle>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let subject = api.rights.authenticate(&headers, Some(&connection)).await?;
    let (mut info, warnings) = registration::parse(&body)?;
    info.check().map_err(|error| invalid(&error))?;
    api.rights.permit(&subject, Right::Register(&info.name), &headers, Some(&connection)).await?;
    info.state = None;
    let mut seen = HashSet::new();
    info.required_services.retain(|name| seen.insert(name.clone()));
    api.access.check_info(&info)?;
    for host in api.foreign_hosts(&info) {
        api.rights.permit(&subject, Right::Host(&host), &headers, Some(&connection)).await?;
    }
    api.stamp_hosts(&mut info);
    let (is_new, is_renewal) = api.dispatcher.catalog.with(|catalog, _| {
        let known = catalog.registered(&InstanceKey::new(&info.name, &info.addr));
        (known.is_none(), known.is_some_and(|known| **known == info))
    });
    if !is_renewal {
        api.check_quotas(&subject, &info, is_new)?;
        api.access.check_rate(Instant::now())?;
    }
    let mode = info.push();
    let permit = prefer::wait(&headers).and_then(|wait| Some((wait, api.waits.try_acquire().ok()?)));
    let wait = permit.as_ref().map(|(wait, _)| *wait);
    let hosts = (!info.hosts_since.is_empty()).then(|| info.clone());
    let mut response = reply(api.register(info, warnings.clone(), wait).await?, mode);
    let headers = response.headers_mut();
    headers.extend(wait.and_then(prefer::applied));
    let about_hosts = hosts.map(|info| api.host_warnings(&info)).unwrap_or_default();
    for warning in warnings.iter().flat_map(|warnings| warnings.iter()).chain(&about_hosts) {
        if let Ok(value) = HeaderValue::try_from(warning.as_str()) {
            headers.append(HUB_WARNING, value);
        }
    }
    Ok(response)
}

/// `DELETE /services`
pub(super) async fn deregister(
    State(api): State<Arc<Api>>,
    Extension(connection): Extension<ConnectionHandle>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(), Problem> {
    let subject = api.rights.authenticate(&headers, Some(&connection)).await?;
    let (info, _) = registration::parse(&body)?;
    info.check().map_err(|error| invalid(&error))?;
    api.rights.permit(&subject, Right::Register(&info.name), &headers, Some(&connection)).await?;
    let mut reason = Json::<DeregistrationReason>::parse(&body)?.reason.unwrap_or_default();
    reason.truncate(reason.floor_char_boundary(MAX_DETAIL));
    let key = InstanceKey::new(&info.name, &info.addr);
    api.deregister(key, info.id, Initiator::Instance(reason)).await
}

/// What a deregistration may have beside the instance.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeregistrationReason {
    reason: Option<String>,
}

/// The lists of all required services, as one JSON object. Each list is rendered once for all members, so they are
/// only concatenated here.
fn reply(RegistrationReply { lists, revision, .. }: RegistrationReply, mode: PushMode) -> Response {
    let json = |list: &InstanceList| -> Bytes {
        match mode {
            PushMode::Snapshot => list.json().clone(),
            PushMode::Event => list.plain_json().clone(),
        }
    };
    let length: usize = lists.iter().map(|(name, list)| name.len() + json(list).len() + 4).sum();
    let mut body = Vec::with_capacity(2 + length);
    body.push(b'{');
    for (i, (name, list)) in lists.iter().enumerate() {
        if i > 0 {
            body.push(b',');
        }
        // A valid name needs no escaping in JSON.
        body.push(b'"');
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(b"\":");
        body.extend_from_slice(&json(list));
    }
    body.push(b'}');
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.extend(revision_header(revision));
    response
}
