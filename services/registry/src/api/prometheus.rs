//! `GET /prometheus/targets`: the instances that declare metrics, in the form of Prometheus' `http_sd`.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use hubspoke_chassis::Problem;
use hubspoke_protocol::{InstanceState, InstanceView, MetricsTargets};

use super::context::Api;
use super::document::unread;
use super::watch::services;
use crate::view;

pub(super) async fn targets(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let only = services(query.as_deref().unwrap_or_default())?;
    let catalog = &api.dispatcher.catalog;
    let _permit = catalog.view_permit().await;
    let view = view::catalog(catalog, (!only.is_empty()).then_some(&only));
    let targets: Vec<_> = view.services.into_values().flatten().filter_map(target).collect();
    unread(catalog, &targets)
}

/// An element per instance, because each has its own labels.
fn target(instance: InstanceView) -> Option<MetricsTargets> {
    let (addr, path) = instance.info.metrics().filter(|_| instance.state != InstanceState::Removed)?;
    let id = instance.info.id().to_owned();
    let labels = [("__metrics_path__", path), ("instance", id), ("job", instance.info.name)];
    let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Some(MetricsTargets { targets: vec![addr], labels })
}
