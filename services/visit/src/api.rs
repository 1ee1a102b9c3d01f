//! The public routes: `GET /` and `GET /visit` count, log the number and answer with it as text. `HEAD` does
//! not count. `GET /visit/stats` shows the totals.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hubspoke_client::LogClient;
use hubspoke_client::log::HUB_LOGGED_BY;
use parking_lot::Mutex;
use serde::Serialize;

use crate::counter::VisitCounter;
use crate::error::VisitError;
use crate::rate::VisitRate;

/// The state that the handlers share.
#[derive(Debug, Clone)]
pub(crate) struct VisitApp {
    pub(crate) counter: VisitCounter,
    pub(crate) log: LogClient,
    pub(crate) instance: Arc<str>,
    /// Counts visits for `/metrics`.
    pub(crate) visits: opentelemetry::metrics::Counter<u64>,
    pub(crate) rate: Arc<Mutex<VisitRate>>,
    pub(crate) start: Instant,
}

/// `GET /visit/stats`.
#[derive(Debug, Serialize)]
struct VisitStats {
    /// The instance that counted.
    instance: Arc<str>,
    /// The last number given out.
    total: u64,
    /// Visits in the last minute.
    per_minute: u64,
    /// Time since the process started.
    uptime_seconds: u64,
}

/// The public routes of a service registered as `name`.
pub(crate) fn routes(name: &str, app: VisitApp) -> Router {
    let visit = || get(visit).head(head);
    Router::new()
        .route("/", visit())
        .route(&format!("/{name}"), visit())
        .route(&format!("/{name}/stats"), get(stats))
        .with_state(app)
}

async fn visit(State(app): State<VisitApp>) -> Result<Response, VisitError> {
    let number = app.counter.next().await?;
    app.visits.add(1, &[]);
    app.rate.lock().count(app.uptime());
    let logged_by = app.log.send(format!("visit {number}")).await?;
    // A count from a cache would be a visit that is not counted.
    let mut reply = ([(header::CACHE_CONTROL, "no-store")], number.to_string()).into_response();
    // An id that is not a valid header value must not fail a visit that is counted and logged.
    if let Ok(id) = HeaderValue::try_from(logged_by) {
        reply.headers_mut().insert(HUB_LOGGED_BY, id);
    }
    Ok(reply)
}

async fn head() -> impl IntoResponse {
    (
        StatusCode::OK,
        [(header::CACHE_CONTROL, "no-store"), (header::CONTENT_TYPE, "text/plain; charset=utf-8")],
    )
}

async fn stats(State(app): State<VisitApp>) -> Json<VisitStats> {
    let total = app.counter.last().await;
    let uptime_seconds = app.uptime();
    let per_minute = app.rate.lock().per_minute(uptime_seconds);
    Json(VisitStats { instance: app.instance, total, per_minute, uptime_seconds })
}

impl VisitApp {
    /// Seconds since the start.
    fn uptime(&self) -> u64 {
        self.start.elapsed().as_secs()
    }
}
