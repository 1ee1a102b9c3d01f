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
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use hubspoke_client::Directory;
use tokio::sync::{Semaphore, watch};

pub(crate) use self::body::Bodies;
use crate::ingest::Bounds;
use crate::store::Store;

mod all;
mod append;
mod body;
mod otlp;
mod read;
mod tail;

/// What the handlers share.
pub(crate) struct App {
    pub(crate) store: Arc<Store>,
    /// What a body may hold.
    pub(crate) bounds: Bounds,
    /// What bodies under way may take together.
    pub(crate) bodies: Bodies,
    /// Longest batch, in bytes.
    pub(crate) max_batch: usize,
    /// The registered name, of this instance and of its peers.
    pub(crate) name: Arc<str>,
    /// The `Id` of this start.
    pub(crate) id: Arc<str>,
    /// Where the peers are.
    pub(crate) directory: Directory,
    pub(crate) http: reqwest::Client,
    /// Each who reads files holds a permit.
    pub(crate) readers: Arc<Semaphore>,
    /// A reader that takes nothing for so long is given up.
    pub(crate) max_stall: Duration,
    /// Turns true at shutdown: followers would never end by themselves.
    pub(crate) closing: watch::Receiver<bool>,
}

/// The public routes.
pub(crate) fn routes(app: App) -> Router {
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
