//! The routes of a member: heartbeats, pushes, and its directory for people.
//!
//! Bodies are read whatever their content type is, since registries in other languages set none. They are read only
//! after the push key has been checked, since these routes may be on a public port.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::handler::Handler;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hubspoke_protocol::problem::{PROBLEM_JSON, ProblemDocument, ProblemType};
use hubspoke_protocol::{
    DIRECTORY_PATH, GatewayHeartbeat, HEART_BEAT_PATH, HUB_REVISION, Revision, SERVICES_PATH, ServiceInfo,
    Snapshot,
};
use serde::de::DeserializeOwned;

use super::state::MemberState;
use crate::directory::InstanceEvent;

/// Longest snapshot that is read, in bytes: the same as for the answer to a registration.
const MAX_SNAPSHOT: usize = 40 << 20;
/// Longest event that is read, in bytes: one instance, as long as the registry accepts one.
const MAX_EVENT: usize = 64 << 10;

type Member = State<Arc<MemberState>>;

pub(super) fn routes(member: Arc<MemberState>) -> Router {
    let pushes = post(added).delete(removed).layer(DefaultBodyLimit::max(MAX_EVENT));
    let pushes = pushes.put(snapshot.layer(DefaultBodyLimit::max(MAX_SNAPSHOT)));
    Router::new()
        .route(HEART_BEAT_PATH, get(heart_beat))
        .route(DIRECTORY_PATH, get(directory))
        .route(SERVICES_PATH, pushes)
        .with_state(member)
}

async fn heart_beat(State(member): Member, headers: HeaderMap) -> Json<GatewayHeartbeat> {
    member.on_heartbeat(revision(&headers));
    Json(member.load.answer())
}

async fn directory(State(member): Member) -> impl IntoResponse {
    let view = member.directory.view();
    let services: BTreeMap<_, Vec<ServiceInfo>> = view
        .services()
        .map(|(name, list)| (name.to_owned(), list.iter().map(|info| ServiceInfo::clone(info)).collect()))
        .collect();
    Json(serde_json::json!({ "Revision": view.revision(), "Services": services }))
}

async fn added(State(member): Member, request: Request) -> Result<(), Response> {
    event(&member, request, InstanceEvent::Added).await
}

async fn removed(State(member): Member, request: Request) -> Result<(), Response> {
    event(&member, request, InstanceEvent::Removed).await
}

async fn snapshot(State(member): Member, request: Request) -> Result<(), Response> {
    if !has_push_key(&member, request.headers()) {
        return Err(unauthorized());
    }
    let snapshot: Snapshot = read(request).await?;
    member.on_push(member.directory.apply_snapshot(snapshot)).await;
    Ok(())
}

async fn event(
    member: &MemberState,
    request: Request,
    event: fn(ServiceInfo) -> InstanceEvent,
) -> Result<(), Response> {
    let revision = revision(request.headers());
    let authorized = has_push_key(member, request.headers());
    if !authorized && !member.is_core_only() && member.is_joined() {
        return Err(unauthorized());
    }
    let event = event(read(request).await?);
    // Before its first answer it is unknown whether the registry sends the push key. The event is buffered until the
    // answer comes: if the registry is core-only it is applied then, and dropped otherwise. If there is no buffer any
    // more, the answer has come.
    if !authorized && !member.is_joined() && member.directory.buffer(&event) {
        return Ok(());
    }
    if authorized || member.is_core_only() {
        member.on_push(member.directory.apply_event(event, revision)).await;
        return Ok(());
    }
    Err(unauthorized())
}

fn has_push_key(member: &MemberState, headers: &HeaderMap) -> bool {
    let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    sent.and_then(|value| value.strip_prefix("Bearer ")).is_some_and(|key| member.is_push_key(key.as_bytes()))
}

fn revision(headers: &HeaderMap) -> Option<Revision> {
    headers.get(HUB_REVISION)?.to_str().ok()?.parse().ok()
}

/// Reads a JSON body, within the limit of the route.
async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Response> {
    let body = Bytes::from_request(request, &()).await.map_err(IntoResponse::into_response)?;
    serde_json::from_slice(&body).map_err(|error| {
        let cause = if error.is_data() { ProblemType::InvalidBody } else { ProblemType::InvalidJson };
        problem(cause, error.to_string())
    })
}

fn unauthorized() -> Response {
    problem(ProblemType::InvalidPushKey, "the push key is missing or wrong".to_owned())
}

fn problem(cause: ProblemType, detail: String) -> Response {
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
