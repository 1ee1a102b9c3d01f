//! The routes for operators: drain, deregister, self-protection.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use hubspoke_chassis::server::ConnectionHandle;
use hubspoke_chassis::{Json, Problem, ProblemType};
use hubspoke_protocol::{ProtectionSwitch, ProtectionView};

use super::context::Api;
use crate::catalog::{Initiator, InstanceKey};
use crate::view;

/// `PUT /services/{name}/{instance}/drain`
pub(super) async fn drain(
    State(api): State<Arc<Api>>,
    Path((name, instance)): Path<(String, String)>,
    Extension(connection): Extension<ConnectionHandle>,
    headers: HeaderMap,
) -> Result<(), Problem> {
    set_drain(&api, &headers, &connection, &name, &instance, true).await
}

/// `DELETE /services/{name}/{instance}/drain`
pub(super) async fn undrain(
    State(api): State<Arc<Api>>,
    Path((name, instance)): Path<(String, String)>,
    Extension(connection): Extension<ConnectionHandle>,
    headers: HeaderMap,
) -> Result<(), Problem> {
    set_drain(&api, &headers, &connection, &name, &instance, false).await
}

/// `DELETE /services/{name}/{instance}`: for entries whose process is gone. A process that runs comes back with its next
/// renewal, drained if it was; to keep one from getting requests, drain it.
pub(super) async fn deregister(
    State(api): State<Arc<Api>>,
    Path((name, instance)): Path<(String, String)>,
    Extension(connection): Extension<ConnectionHandle>,
    headers: HeaderMap,
) -> Result<(), Problem> {
    api.require_operator(&headers, &connection).await?;
    let key = find(&api, &name, &instance)?;
    api.deregister(key, None, Initiator::Operator).await?;
    api.saved().await;
    Ok(())
}

/// `GET /protection`
pub(super) async fn protection(State(api): State<Arc<Api>>) -> axum::Json<ProtectionView> {
    axum::Json(view::protection(&api.dispatcher.catalog))
}

/// `PUT /protection`
pub(super) async fn set_protection(
    State(api): State<Arc<Api>>,
    Extension(connection): Extension<ConnectionHandle>,
    headers: HeaderMap,
    Json(switch): Json<ProtectionSwitch>,
) -> Result<axum::Json<ProtectionView>, Problem> {
    api.require_operator(&headers, &connection).await?;
    api.set_protection(switch.enabled).await?;
    Ok(axum::Json(view::protection(&api.dispatcher.catalog)))
}

async fn set_drain(
    api: &Api,
    headers: &HeaderMap,
    connection: &ConnectionHandle,
    name: &str,
    instance: &str,
    on: bool,
) -> Result<(), Problem> {
    api.require_operator(headers, connection).await?;
    let key = find(api, name, instance)?;
    api.drain(key, on).await
}

/// The instance of a service with this address or `Id`.
fn find(api: &Api, name: &str, instance: &str) -> Result<InstanceKey, Problem> {
    api.dispatcher.catalog.with(|catalog, _| catalog.find(name, instance)).ok_or_else(|| {
        let detail = format!("no instance of {name:?} has the address or the id {instance:?}, nor a single one an id that begins so");
        Problem::new(ProblemType::NoSuchInstance, detail)
    })
}
