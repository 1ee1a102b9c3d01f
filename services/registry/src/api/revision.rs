//! The `Hub-Revision` header, which every response has.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use hubspoke_protocol::{HUB_REVISION, Revision};

use crate::shared::SharedCatalog;

/// Middleware: adds the newest revision to each response that has none yet, and `WWW-Authenticate` to each 401.
pub(crate) async fn stamp(
    State(catalog): State<Arc<SharedCatalog>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    if !response.headers().contains_key(HUB_REVISION) {
        response.headers_mut().extend(revision_header(catalog.revision()));
    }
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

pub(super) fn revision_header(revision: Revision) -> Option<(HeaderName, HeaderValue)> {
    let value = HeaderValue::try_from(revision.to_string()).ok()?;
    Some((HeaderName::from_static(HUB_REVISION), value))
}
