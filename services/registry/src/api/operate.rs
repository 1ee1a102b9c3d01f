//! What operators ask for: to drain an instance, to take out a ghost, to switch self-protection.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use hubspoke_chassis::{Json, Problem, ProblemType};
use hubspoke_protocol::{ProtectionSwitch, ProtectionView};

use super::Api;
use crate::catalog::{By, Event, Key};
use crate::view;

impl Api {
    /// The instance with that address or `Id`.
    fn find(&self, name: &str, instance: &str) -> Result<Key, Problem> {
        self.core.read(|catalog, _| catalog.find(name, instance)).ok_or_else(|| {
            let detail = format!("no instance of {name:?} has the address or Id {instance:?}");
            Problem::new(ProblemType::NoSuchInstance, detail)
        })
    }

    fn set_drained(&self, headers: &HeaderMap, name: &str, instance: &str, on: bool) -> Result<(), Problem> {
        self.may_change(headers)?;
        let key = self.find(name, instance)?;
        self.core.apply(Event::Drain { key, on }, None)?;
        Ok(())
    }
}

/// `PUT /services/{name}/{instance}/drain`
pub(super) async fn drain(
    State(api): State<Arc<Api>>,
    Path((name, instance)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<(), Problem> {
    api.set_drained(&headers, &name, &instance, true)
}

/// `DELETE /services/{name}/{instance}/drain`
pub(super) async fn undrain(
    State(api): State<Arc<Api>>,
    Path((name, instance)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<(), Problem> {
    api.set_drained(&headers, &name, &instance, false)
}

/// `DELETE /services/{name}/{instance}`: for ghosts; an instance that lives comes back with its next renewal.
pub(super) async fn deregister(
    State(api): State<Arc<Api>>,
    Path((name, instance)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<(), Problem> {
    api.may_change(&headers)?;
    let key = api.find(&name, &instance)?;
    api.take_out(key, None, By::Operator).await?;
    Ok(())
}

/// `GET /protection`
pub(super) async fn protection(State(api): State<Arc<Api>>) -> axum::Json<ProtectionView> {
    axum::Json(view::protection(&api.core))
}

/// `PUT /protection`
pub(super) async fn protect(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Json(switch): Json<ProtectionSwitch>,
) -> Result<axum::Json<ProtectionView>, Problem> {
    api.may_change(&headers)?;
    api.core.apply(Event::Protect(switch.enabled), None)?;
    Ok(axum::Json(view::protection(&api.core)))
}
