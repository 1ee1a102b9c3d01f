//! JSON bodies, lenient in their `Content-Type` and strict in their content: members in other languages send none, and
//! invalid JSON and a wrong shape are different problems.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::response::IntoResponse;
use hubspoke_protocol::problem::ProblemType;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// A JSON body. Rejections: 400 for invalid JSON, 422 for a wrong shape, 413 for a body that is too long.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = axum::response::Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let body = Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        Self::parse(&body).map(Self).map_err(IntoResponse::into_response)
    }
}

impl<T: DeserializeOwned> Json<T> {
    /// Parses a body.
    ///
    /// # Errors
    /// A problem with the status 400 for invalid JSON, and 422 for a wrong shape.
    pub fn parse(body: &[u8]) -> Result<T, Problem> {
        serde_json::from_slice(body).map_err(|error| {
            let cause = if error.is_data() { ProblemType::InvalidBody } else { ProblemType::InvalidJson };
            Problem::new(cause, format!("invalid body: {error}"))
        })
    }
}
