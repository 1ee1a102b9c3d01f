//! What a member serves to the registry, and to people who ask what it knows. Bodies are read without regard to their
//! content type, since registries in other languages set none; and only after the push key was looked at, since these
//! routes may be on a public port.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::handler::Handler;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;

use super::Member;
use crate::directory::{Applied, Event};
use hubspoke_protocol::problem::{PROBLEM_JSON, ProblemDocument, ProblemType};
use hubspoke_protocol::{
    DIRECTORY_PATH, HEART_BEAT_PATH, HUB_REVISION, Heartbeat, Revision, SERVICES_PATH, ServiceInfo, Snapshot,
};

/// Longest snapshot that is read, in bytes, as for replies.
const MAX_SNAPSHOT: usize = 40 << 20;
/// Longest event that is read, in bytes: one instance, as long as the registry lets one be.
const MAX_EVENT: usize = 64 << 10;

pub(super) fn routes(member: Member) -> Router {
    let pushes = post(added).delete(removed).layer(DefaultBodyLimit::max(MAX_EVENT));
    let pushes = pushes.put(snapshot.layer(DefaultBodyLimit::max(MAX_SNAPSHOT)));
    Router::new()
        .route(HEART_BEAT_PATH, get(heart_beat))
        .route(DIRECTORY_PATH, get(directory))
        .route(SERVICES_PATH, pushes)
        .with_state(member)
}

async fn heart_beat(State(member): State<Member>, headers: HeaderMap) -> Json<Heartbeat> {
    member.heard(stamp(&headers));
    Json(member.0.load.heartbeat())
}

/// What this member knows, for whoever wonders why it calls one instance and not another.
async fn directory(State(member): State<Member>) -> impl IntoResponse {
    let view = member.0.directory.view();
    let services: BTreeMap<_, Vec<ServiceInfo>> = view
        .services()
        .map(|(name, list)| (name.to_owned(), list.iter().map(|info| ServiceInfo::clone(info)).collect()))
        .collect();
    Json(serde_json::json!({ "Revision": view.revision(), "Services": services }))
}

async fn added(State(member): State<Member>, request: Request) -> Result<Response, Response> {
    event(&member, request, Event::Added).await
}

async fn removed(State(member): State<Member>, request: Request) -> Result<Response, Response> {
    event(&member, request, Event::Removed).await
}

async fn snapshot(State(member): State<Member>, request: Request) -> Result<Response, Response> {
    if !has_key(&member, request.headers()) {
        return Err(no_key());
    }
    let snapshot: Snapshot = read(request).await?;
    let pushed = member.0.directory.snapshot(snapshot);
    Ok(applied(&member, pushed).await)
}

async fn event(
    member: &Member,
    request: Request,
    event: fn(ServiceInfo) -> Event,
) -> Result<Response, Response> {
    let stamp = stamp(request.headers());
    let has_key = has_key(member, request.headers());
    let is_core_only = || member.0.core_only.load(Relaxed);
    let joined = || *member.0.joined.borrow();
    if !has_key && !is_core_only() && joined() {
        return Err(no_key());
    }
    let event = event(read(request).await?);
    // Before the first reply we can't know whether the registry has our key. What it says now is kept until the
    // reply tells: a core-only registry's events are applied then, those of any other are dropped. Where nothing is
    // kept any more, the reply has told.
    if !has_key && !joined() && member.0.directory.remember(&event) {
        return Ok(StatusCode::OK.into_response());
    }
    if has_key || is_core_only() {
        let pushed = member.0.directory.event(event, stamp);
        return Ok(applied(member, pushed).await);
    }
    Err(no_key())
}

async fn applied(member: &Member, applied: Applied) -> Response {
    if applied == Applied::OtherEpoch {
        member.0.behind.notify_one();
    }
    member.0.directory.settled().await;
    StatusCode::OK.into_response()
}

fn has_key(member: &Member, headers: &HeaderMap) -> bool {
    let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    sent.and_then(|value| value.strip_prefix("Bearer ")).is_some_and(|key| same(key, &member.0.push_key))
}

/// Compares without telling by its duration where the first difference is.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn stamp(headers: &HeaderMap) -> Option<Revision> {
    headers.get(HUB_REVISION)?.to_str().ok()?.parse().ok()
}

/// Reads a body, within the route's limit.
async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Response> {
    let body = Bytes::from_request(request, &()).await.map_err(IntoResponse::into_response)?;
    serde_json::from_slice(&body).map_err(|error| {
        let cause = if error.is_data() { ProblemType::InvalidBody } else { ProblemType::InvalidJson };
        refused(cause, error.to_string())
    })
}

fn no_key() -> Response {
    refused(ProblemType::InvalidPushKey, "the push key is missing or wrong".to_owned())
}

fn refused(cause: ProblemType, detail: String) -> Response {
    let status = StatusCode::from_u16(cause.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let problem = ProblemDocument {
        problem_type: cause.urn().to_owned(),
        title: status.canonical_reason().unwrap_or_default().to_owned(),
        status: status.as_u16(),
        detail,
        members: (),
    };
    (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], Json(problem)).into_response()
}
