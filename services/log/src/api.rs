//! The public routes, below the service's registered name.
//!
//! | call | does |
//! |---|---|
//! | `POST /log` | stores a text, or a batch of JSON values ([`append`]) |

use std::sync::Arc;

use axum::Router;
use axum::routing::post;

use crate::store::Store;

mod append;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) store: Arc<Store>,
    /// Longest text of one entry, in bytes.
    pub(crate) max_entry: usize,
    /// Longest batch, in bytes.
    pub(crate) max_batch: usize,
}

/// The public routes of a service registered as `name`.
pub(crate) fn routes(name: &str, app: App) -> Router {
    Router::new().route(&format!("/{name}"), post(append::append)).with_state(app)
}
