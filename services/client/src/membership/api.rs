//! What a member serves to the registry, and to people who ask what it knows. Bodies are read without regard to their content type, since registries
//! in other languages set none.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::de::DeserializeOwned;

use super::Member;
use crate::directory::{Applied, Event};
use crate::protocol::{
    DIRECTORY_PATH, HEART_BEAT_PATH, HUB_REVISION, Heartbeat, Revision, SERVICES_PATH, ServiceInfo, Snapshot,
};

/// Longest push that is read, in bytes, as for replies.
const MAX_PUSH: usize = 40 << 20;

pub(super) fn routes(member: Member) -> Router {
    Router::new()
        .route(HEART_BEAT_PATH, get(heart_beat))
        .route(DIRECTORY_PATH, get(directory))
        .route(SERVICES_PATH, axum::routing::post(added).delete(removed).put(snapshot))
        .layer(DefaultBodyLimit::max(MAX_PUSH))
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

async fn added(State(member): State<Member>, headers: HeaderMap, body: Bytes) -> Response {
    event(&member, &headers, &body, Event::Added)
}

async fn removed(State(member): State<Member>, headers: HeaderMap, body: Bytes) -> Response {
    event(&member, &headers, &body, Event::Removed)
}

async fn snapshot(State(member): State<Member>, headers: HeaderMap, body: Bytes) -> Response {
    if !has_key(&member, &headers) {
        return refused(StatusCode::UNAUTHORIZED, "the push key is missing or wrong");
    }
    match parse::<Snapshot>(&body) {
        Ok(snapshot) => applied(&member, member.0.directory.snapshot(snapshot)),
        Err(reply) => reply,
    }
}

fn event(member: &Member, headers: &HeaderMap, body: &[u8], event: fn(ServiceInfo) -> Event) -> Response {
    let event = match parse::<ServiceInfo>(body) {
        Ok(info) => event(info),
        Err(reply) => return reply,
    };
    // Before the first reply we can't know whether the registry has our key. What it says now is kept until the
    // reply tells: a core-only registry's events are applied then, those of any other are dropped. Where nothing is
    // kept any more, the reply has told.
    let has_key = has_key(member, headers);
    if !has_key && !*member.0.joined.borrow() && member.0.directory.remember(&event) {
        return StatusCode::OK.into_response();
    }
    if has_key || member.0.core_only.load(Relaxed) {
        return applied(member, member.0.directory.event(event, stamp(headers)));
    }
    refused(StatusCode::UNAUTHORIZED, "the push key is missing or wrong")
}

fn applied(member: &Member, applied: Applied) -> Response {
    if applied == Applied::OtherEpoch {
        member.0.behind.notify_one();
    }
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

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Response> {
    serde_json::from_slice(body).map_err(|error| {
        let status = if error.is_data() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
        refused(status, &error.to_string())
    })
}

fn refused(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    let problem = serde_json::json!({
        "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], problem.to_string()).into_response()
}
