//! The registry's HTTP interface. Handlers translate: they extract, make one call, and convert the result.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use hubspoke_chassis::{Problem, ProblemType};
use hubspoke_protocol::{
    PROMETHEUS_TARGETS_PATH, PROTECTION_PATH, REGISTRIES_PATH, SERVICES_PATH, WATCH_PATH,
};

pub(crate) use self::context::{Api, MAX_WAITS};
use self::document::unread;
pub(crate) use self::revision::stamp;
use crate::findings::{ACKNOWLEDGED_PATH, HEARD_PATH, PROBE_PATH};
use crate::view;

mod context;
mod document;
mod member;
mod operator;
mod prefer;
mod prometheus;
mod registration;
mod registries;
mod revision;
mod watch;

/// The description of the interface (OpenAPI 3.1). Written by hand; tests compare it with the types and the routes.
const OPENAPI: &str = include_str!("../openapi.json");

/// The routes of the interface.
pub(crate) fn routes(api: Arc<Api>) -> Router {
    let is_shared = api.store.is_some();
    let check_read = from_fn_with_state(api.clone(), registries::check_read);
    let routes = Router::new()
        .route(SERVICES_PATH, post(member::register).delete(member::deregister).get(all))
        .route(WATCH_PATH, get(watch::watch))
        .route("/services/{name}", get(one))
        .route("/services/{name}/{instance}", delete(operator::deregister))
        .route("/services/{name}/{instance}/drain", put(operator::drain).delete(operator::undrain))
        .route("/openapi.json", get(openapi))
        .route(PROMETHEUS_TARGETS_PATH, get(prometheus::targets))
        .route(PROTECTION_PATH, get(operator::protection).put(operator::set_protection))
        .route(REGISTRIES_PATH, get(registries::all))
        .route(HEARD_PATH, get(registries::heard))
        .route(PROBE_PATH, post(registries::probe))
        .route(ACKNOWLEDGED_PATH, post(registries::acknowledged))
        .with_state(api);
    if is_shared { routes.layer(check_read) } else { routes }
}

async fn all(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let catalog = &api.dispatcher.catalog;
    let _permit = catalog.view_permit().await;
    unread(catalog, &view::catalog(catalog, None))
}

async fn one(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let catalog = &api.dispatcher.catalog;
    let view = view::catalog(catalog, Some(std::slice::from_ref(&name)));
    if view.services.is_empty() {
        let detail = format!("there is no service named {name:?}");
        return Err(Problem::new(ProblemType::NoSuchService, detail));
    }
    unread(catalog, &view)
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}
