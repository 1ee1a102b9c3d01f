//! JSON bodies read leniently as to their label and strictly as to their content: members in other languages send
//! no content type, and what is wrong with a body is worth telling apart.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::response::IntoResponse;
use hubspoke_protocol::problem::ProblemType;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// A JSON body: 400 where it is no JSON, 422 where its shape is wrong, 413 where it is too long.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = axum::response::Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let body = Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        parse(&body).map(Self).map_err(IntoResponse::into_response)
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let cause = if error.is_data() { ProblemType::InvalidBody } else { ProblemType::InvalidJson };
        Problem::new(cause, format!("the body is not what is expected here: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_json_and_the_wrong_shape_are_told_apart() {
        assert_eq!(parse::<Vec<u8>>(b" [1, 2]\n").unwrap(), [1, 2]);
        for (body, status) in
            [("", 400), ("[1", 400), ("[1] x", 400), ("\u{0}", 400), ("{}", 422), ("[\"x\"]", 422)]
        {
            assert_eq!(parse::<Vec<u8>>(body.as_bytes()).unwrap_err().status().as_u16(), status, "{body:?}");
        }
    }
}
