//! The public routes: `GET /` and `GET /visit` count, log the count, and answer with it as text; `GET /visit/stats`
//! tells. `HEAD` does not count.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hubspoke_client::LogClient;
use hubspoke_client::log::HUB_LOGGED_BY;
use opentelemetry::metrics::Counter;
use serde::Serialize;

use crate::counter;
use crate::error::VisitError;
use crate::rate::Rate;

/// What the handlers share.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) counter: counter::Counter,
    pub(crate) log: LogClient,
    pub(crate) instance: Arc<str>,
    pub(crate) visits: Counter<u64>,
    pub(crate) rate: Arc<Mutex<Rate>>,
    pub(crate) start: Instant,
}

/// `GET /visit/stats`.
#[derive(Debug, Serialize)]
struct Stats {
    /// Whose count this is.
    instance: Arc<str>,
    /// The last number given out.
    total: u64,
    /// Visits in the last minute.
    per_minute: u64,
    /// Since this start of the process.
    uptime_seconds: u64,
}

/// The public routes of a service registered as `name`.
pub(crate) fn routes(name: &str, app: App) -> Router {
    let visit = || get(visit).head(seen);
    Router::new()
        .route("/", visit())
        .route(&format!("/{name}"), visit())
        .route(&format!("/{name}/stats"), get(stats))
        .with_state(app)
}

async fn visit(State(app): State<App>) -> Result<Response, VisitError> {
    let number = app.counter.next().await?;
    app.visits.add(1, &[]);
    app.rate().count(app.now());
    let logged_by = app.log.send(format!("visit {number}")).await?;
    // A count that a cache answers with is a visit that is not counted.
    let mut reply = ([(header::CACHE_CONTROL, "no-store")], number.to_string()).into_response();
    // An id that fits into no header is not worth failing a visit that is counted and logged.
    if let Ok(id) = HeaderValue::try_from(logged_by) {
        reply.headers_mut().insert(HUB_LOGGED_BY, id);
    }
    Ok(reply)
}

async fn seen() -> impl IntoResponse {
    (
        StatusCode::OK,
        [(header::CACHE_CONTROL, "no-store"), (header::CONTENT_TYPE, "text/plain; charset=utf-8")],
    )
}

async fn stats(State(app): State<App>) -> Json<Stats> {
    let total = app.counter.last().await;
    let now = app.now();
    let per_minute = app.rate().per_minute(now);
    Json(Stats { instance: app.instance, total, per_minute, uptime_seconds: now })
}

impl App {
    fn now(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    fn rate(&self) -> std::sync::MutexGuard<'_, Rate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
