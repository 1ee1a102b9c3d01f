//! The public routes, below the service's registered name.
//!
//! | call | does |
//! |---|---|
//! | `POST /log` | stores a text, or a batch of JSON values ([`append`]) |
//! | `GET /log` | finds entries of this instance ([`read`]) |
//! | `GET /log/all` | finds entries of all instances ([`all`]) |
//! | `GET /log/tail` | follows this instance ([`tail`]) |
//! | `POST /v1/logs`, `/log/v1/logs` | stores OTLP log records ([`otlp`]): directly, and through the gateway |

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use self::app::LogApp;

pub(crate) mod admission;
mod all;
pub(crate) mod app;
mod append;
pub(crate) mod body;
mod otlp;
mod read;
mod request;
pub(crate) mod sender;
mod stream;
mod tail;

/// The public routes.
pub(crate) fn routes(app: LogApp) -> Router {
    let name = &*app.name.clone();
    Router::new()
        .route(&format!("/{name}"), post(append::append).get(read::read))
        .route(&format!("/{name}/all"), get(all::read))
        .route(&format!("/{name}/tail"), get(tail::tail))
        .route("/v1/logs", post(otlp::export))
        .route(&format!("/{name}/v1/logs"), post(otlp::export))
        .with_state(Arc::new(app))
}

#[cfg(test)]
mod tests;
