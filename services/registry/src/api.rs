//! The registry's HTTP interface: one route table, handlers that translate. Every answer carries `Hub-Revision`, those of
//! the page too; [`hubspoke_chassis`] serves health and metrics beside them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use hubspoke_chassis::{Json, Problem, ProblemType};
use hubspoke_protocol::{
    CatalogView, HUB_REVISION, PROTECTION_PATH, PushMode, Revision, SERVICES_PATH, ServiceInfo, WATCH_PATH,
};
use tokio::sync::mpsc;

use self::access::Access;
use crate::catalog::{By, Event, Key, Outcome};
use crate::core::{Core, Registered};
use crate::error::invalid;
use crate::view;

pub(crate) mod access;
mod operate;
pub(crate) mod watching;

/// The description of what is served here (OpenAPI 3.1). Written by hand, held to the types by tests.
const OPENAPI: &str = include_str!("../openapi.json");

/// What handlers work with.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) core: Arc<Core>,
    pub(crate) access: Access,
    /// How long a deregistration waits for the dependents.
    pub(crate) deregister_wait: Duration,
    /// How many may watch at once.
    pub(crate) max_watchers: usize,
    /// Ends watch streams.
    pub(crate) stopping: tokio::sync::watch::Sender<bool>,
    /// Longest body.
    pub(crate) max_body: usize,
}

/// The registry's routes.
pub(crate) fn routes(api: Arc<Api>) -> Router {
    Router::new()
        .route(SERVICES_PATH, post(register).delete(deregister).get(all))
        .route(WATCH_PATH, get(watching::watch))
        .route("/services/{name}", get(one))
        .route("/services/{name}/{instance}", delete(operate::deregister))
        .route("/services/{name}/{instance}/drain", put(operate::drain).delete(operate::undrain))
        .route("/openapi.json", get(openapi))
        .route(PROTECTION_PATH, get(operate::protection).put(operate::protect))
        .with_state(api.clone())
        .merge(crate::page::routes(&api))
        .layer(DefaultBodyLimit::max(api.max_body))
        .layer(from_fn_with_state(api, stamp))
}

/// Stamps each answer that is not stamped yet.
async fn stamp(State(api): State<Arc<Api>>, request: axum::extract::Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if !response.headers().contains_key(HUB_REVISION) {
        response.headers_mut().extend(stamped(api.core.revision()));
    }
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn stamped(revision: Revision) -> Option<(HeaderName, HeaderValue)> {
    let value = HeaderValue::try_from(revision.to_string()).ok()?;
    Some((HeaderName::from_static(HUB_REVISION), value))
}

async fn register(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Json(mut info): Json<ServiceInfo>,
) -> Result<Response, Problem> {
    api.may_change(&headers)?;
    info.check().map_err(|error| invalid(&error))?;
    info.state = None;
    let mut seen = std::collections::HashSet::new();
    info.required_services.retain(|name| seen.insert(name.clone()));
    api.access.check_info(&info)?;
    let is_renewal = api.core.read(|catalog, _| {
        catalog.registered(&Key::new(&info.name, &info.addr)).is_some_and(|(_, known)| *known == info)
    });
    if !is_renewal {
        api.access.check_rate()?;
    }
    let mode = info.push();
    let registered = api.core.register(info)?;
    Ok(reply(registered, mode))
}

/// The lists of all required services. Each is rendered once for all who ask, so here they are only joined.
fn reply(registered: Registered, mode: PushMode) -> Response {
    let Registered { lists, revision } = registered;
    let json = |list: &crate::catalog::List| match mode {
        PushMode::Snapshot => list.json().clone(),
        PushMode::Event => list.plain_json().clone(),
    };
    let mut body = Vec::with_capacity(
        2 + lists.iter().map(|(name, list)| name.len() + json(list).len() + 4).sum::<usize>(),
    );
    body.push(b'{');
    for (i, (name, list)) in lists.iter().enumerate() {
        if i > 0 {
            body.push(b',');
        }
        // A valid name holds nothing that JSON would escape.
        body.push(b'"');
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(b"\":");
        body.extend_from_slice(&json(list));
    }
    body.push(b'}');
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.extend(stamped(revision));
    response
}

async fn deregister(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Json(info): Json<ServiceInfo>,
) -> Result<Response, Problem> {
    api.may_change(&headers)?;
    info.check().map_err(|error| invalid(&error))?;
    let key = Key::new(&info.name, &info.addr);
    api.take_out(key, info.id, By::Itself).await?;
    Ok(StatusCode::OK.into_response())
}

impl Api {
    fn may_change(&self, headers: &HeaderMap) -> Result<(), Problem> {
        access::check_site(headers)?;
        let shown = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        Ok(self.access.check_token(shown)?)
    }

    /// Takes an instance out and waits for its dependents to know, within bounds.
    async fn take_out(&self, key: Key, id: Option<String>, by: By) -> Result<Outcome, Problem> {
        let (ack, mut known_to_all) = mpsc::channel(1);
        let outcome = self.core.apply(Event::Deregister { key, id, by }, Some(ack))?;
        if tokio::time::timeout(self.deregister_wait, known_to_all.recv()).await.is_err() {
            tracing::debug!("not all dependents have acknowledged a deregistration in time");
        }
        Ok(outcome)
    }
}

async fn all(State(api): State<Arc<Api>>) -> Response {
    let _turn = api.core.turn().await;
    axum::Json(view::catalog(&api.core, None)).into_response()
}

async fn one(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<axum::Json<CatalogView>, Problem> {
    let view = view::catalog(&api.core, Some(std::slice::from_ref(&name)));
    if view.services.is_empty() {
        return Err(Problem::new(ProblemType::NoSuchService, format!("no service is called {name:?}")));
    }
    Ok(axum::Json(view))
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}
