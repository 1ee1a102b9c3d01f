//! The routes for operators: drain, deregister, self-protection.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use hubspoke_chassis::{Json, Problem, ProblemType};
use hubspoke_protocol::{ProtectionSwitch, ProtectionView};

use super::context::Api;
use crate::catalog::{CatalogEvent, Initiator, InstanceKey};
use crate::view;

/// `PUT /services/{name}/{instance}/drain`
pub(super) async fn drain(
    State(api): State<Arc<Api>>,
    Path((name, instance)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<(), Problem> {
    set_drain(&api, &headers, &name, &instance, true)
}

/// `DELETE /services/{name}/{instance}/drain`
pub(super) async fn undrain(
    State(api): State<Arc<Api>>,
    Path((name, instance)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<(), Problem> {
    set_drain(&api, &headers, &name, &instance, false)
}

/// `DELETE /services/{name}/{instance}`: for entries whose process is gone. A running instance comes back with its
/// next renewal.
pub(super) async fn deregister(
    State(api): State<Arc<Api>>,
    Path((name, instance)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<(), Problem> {
    api.access.check_change(&headers)?;
    let key = find(&api, &name, &instance)?;
    api.deregister(key, None, Initiator::Operator).await
}

/// `GET /protection`
pub(super) async fn protection(State(api): State<Arc<Api>>) -> axum::Json<ProtectionView> {
    axum::Json(view::protection(&api.dispatcher.catalog))
}

/// `PUT /protection`
pub(super) async fn set_protection(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Json(switch): Json<ProtectionSwitch>,
) -> Result<axum::Json<ProtectionView>, Problem> {
    api.access.check_change(&headers)?;
    api.dispatcher.apply(CatalogEvent::SetProtection(switch.enabled), None)?;
    Ok(axum::Json(view::protection(&api.dispatcher.catalog)))
}

fn set_drain(api: &Api, headers: &HeaderMap, name: &str, instance: &str, on: bool) -> Result<(), Problem> {
    api.access.check_change(headers)?;
    let key = find(api, name, instance)?;
    api.dispatcher.apply(CatalogEvent::Drain { key, on }, None)?;
    Ok(())
}

/// The instance of a service with this address or `Id`.
fn find(api: &Api, name: &str, instance: &str) -> Result<InstanceKey, Problem> {
    api.dispatcher.catalog.with(|catalog, _| catalog.find(name, instance)).ok_or_else(|| {
        let detail = format!("no instance of {name:?} has the address or Id {instance:?}");
        Problem::new(ProblemType::NoSuchInstance, detail)
    })
}
