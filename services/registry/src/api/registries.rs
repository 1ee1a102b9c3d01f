//! The routes of registries that share a store: which there are, and what they tell each other.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hubspoke_chassis::server::ConnectionHandle;
use hubspoke_chassis::{Json, Problem, ProblemType};
use hubspoke_protocol::RegistriesView;
use serde::Deserialize;
use tokio::time::Instant;

use super::context::Api;
use crate::catalog::InstanceKey;
use crate::findings::{AcknowledgedQuery, ProbeQuery, ProbeReply};
use crate::heard::BATCH_TIME;
use crate::heartbeat::probe_once;
use crate::store::Store;
use crate::view;

/// Longest wait for acknowledgements.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Middleware: a registry that has not read the store yet knows nothing, which is not the same as that there is nothing.
pub(super) async fn check_read(
    State(api): State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if api.store.as_ref().is_some_and(|store| !store.status.is_listed()) {
        let detail = "the registry has not read etcd yet";
        return Err(Problem::new(ProblemType::StoreUnavailable, detail).retry_after(1));
    }
    Ok(next.run(request).await)
}

/// `GET /registries`
pub(super) async fn all(State(api): State<Arc<Api>>) -> Result<axum::Json<RegistriesView>, Problem> {
    let catalog = &api.dispatcher.catalog;
    let cluster = catalog.cluster().ok_or_else(no_store)?;
    Ok(axum::Json(view::registries(catalog, cluster)))
}

/// The first batch to return.
#[derive(Deserialize)]
pub(super) struct From {
    #[serde(default)]
    from: u64,
}

/// `GET /registries/heard`
pub(super) async fn heard(
    State(api): State<Arc<Api>>,
    Extension(connection): Extension<ConnectionHandle>,
    headers: HeaderMap,
    Query(From { from }): Query<From>,
) -> Result<Response, Problem> {
    shared(&api, &headers, &connection).await?;
    // It is held until there is something, so that the one that asks notices at once if this registry dies.
    tokio::time::sleep(BATCH_TIME).await;
    let text = api.dispatcher.findings(from);
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// `POST /registries/probe`
pub(super) async fn probe(
    State(api): State<Arc<Api>>,
    Extension(connection): Extension<ConnectionHandle>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<axum::Json<ProbeReply>, Problem> {
    shared(&api, &headers, &connection).await?;
    let query: ProbeQuery = Json::parse(&body)?;
    let key = InstanceKey::new(&query.name, &query.addr);
    let dispatcher = &api.dispatcher;
    let reply =
        probe_once(&dispatcher.catalog, &dispatcher.instruments, &dispatcher.dialer, key, api.probe_timeout)
            .await;
    Ok(axum::Json(ProbeReply { alive: reply.is_some(), heartbeat: reply.flatten() }))
}

/// `POST /registries/acknowledged`
pub(super) async fn acknowledged(
    State(api): State<Arc<Api>>,
    Extension(connection): Extension<ConnectionHandle>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<axum::Json<bool>, Problem> {
    let store = shared(&api, &headers, &connection).await?;
    let AcknowledgedQuery { name, revision, wait_ms } = Json::parse(&body)?;
    let deadline = Instant::now() + Duration::from_millis(wait_ms).min(MAX_WAIT);
    let all = async {
        let applied = store.applied(revision, deadline).await.is_ok();
        api.dispatcher.acknowledged(&name).await;
        applied
    };
    Ok(axum::Json(tokio::time::timeout_at(deadline, all).await.unwrap_or(false)))
}

/// The store, for another registry, which has an operator's rights.
async fn shared<'a>(
    api: &'a Api,
    headers: &HeaderMap,
    connection: &ConnectionHandle,
) -> Result<&'a Store, Problem> {
    api.require_operator(headers, connection).await?;
    api.store.as_deref().ok_or_else(no_store)
}

fn no_store() -> Problem {
    let detail = "this registry is the only one: its store is its memory (registry.store)";
    Problem::new(ProblemType::NotFound, detail)
}
