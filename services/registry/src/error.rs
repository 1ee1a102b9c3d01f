//! What the registry refuses, as replies.

use axum::http::StatusCode;
use hubspoke_chassis::Problem;
use hubspoke_protocol::InvalidInfo;

use crate::api::access::Denied;
use crate::catalog::Refusal;

pub(crate) fn invalid(error: &InvalidInfo) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::OlderStart { .. } => Self::new(StatusCode::CONFLICT, refusal.to_string()),
            Refusal::TooManyInstances(_) | Refusal::TooManyServices(_) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, refusal.to_string()).retry_after(60)
            }
        }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let status = match denied {
            Denied::Token => StatusCode::UNAUTHORIZED,
            Denied::OtherSite | Denied::Address(_) | Denied::NotAnAddress(_) => StatusCode::FORBIDDEN,
            Denied::TooManyRequired { .. }
            | Denied::MetaTooLong { .. }
            | Denied::MetaTooMany(_)
            | Denied::IdTooLong(_)
            | Denied::Id
            | Denied::PushKey => StatusCode::UNPROCESSABLE_ENTITY,
            Denied::TooFast => StatusCode::TOO_MANY_REQUESTS,
        };
        let problem = Self::new(status, denied.to_string());
        if denied == Denied::TooFast { problem.retry_after(1) } else { problem }
    }
}
