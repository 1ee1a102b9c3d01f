//! Views as responses.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use hubspoke_chassis::{Problem, ProblemType};
use serde::Serialize;

use crate::shared::SharedCatalog;

/// A view as a response that counts until it is read.
pub(super) fn unread(catalog: &SharedCatalog, view: &impl Serialize) -> Result<Response, Problem> {
    let text = serde_json::to_vec(view).unwrap_or_default();
    let text = catalog.unread(text).ok_or_else(|| {
        let detail = "other clients have not read their copies of the catalogue yet";
        Problem::new(ProblemType::TooManyStreams, detail).retry_after(5)
    })?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}
