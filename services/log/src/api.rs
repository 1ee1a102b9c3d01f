//! The public routes, below the service's registered name.
//!
//! | call | does |
//! |---|---|
//! | `POST /log` | stores a text, or a batch of JSON values ([`append`]) |
//! | `GET /log` | finds entries of this instance ([`read`]) |
//! | `GET /log/tail` | follows this instance ([`tail`]) |

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use tokio::sync::{Semaphore, watch};

use crate::store::Store;

mod append;
mod read;
mod tail;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) store: Arc<Store>,
    /// Longest text of one entry, in bytes.
    pub(crate) max_entry: usize,
    /// Longest batch, in bytes.
    pub(crate) max_batch: usize,
    /// Each who reads files holds a permit.
    pub(crate) readers: Arc<Semaphore>,
    /// Turns true at shutdown: followers would never end by themselves.
    pub(crate) closing: watch::Receiver<bool>,
}

/// The public routes of a service registered as `name`.
pub(crate) fn routes(name: &str, app: App) -> Router {
    Router::new()
        .route(&format!("/{name}"), post(append::append).get(read::read))
        .route(&format!("/{name}/tail"), get(tail::tail))
        .with_state(app)
}
