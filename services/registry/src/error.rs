//! Errors as problem documents.

use hubspoke_chassis::{Problem, ProblemType};
use hubspoke_protocol::InvalidInfo;

use crate::access::Denied;
use crate::catalog::Refusal;
use crate::quotas::OverQuota;
use crate::store::StoreError;

pub(crate) fn invalid(error: &InvalidInfo) -> Problem {
    Problem::new(ProblemType::InvalidRegistration, error.to_string())
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::OlderStart { .. } => Self::new(ProblemType::OlderStart, refusal.to_string()),
            Refusal::TooManyInstances(_) | Refusal::TooMuchMemory(_) => {
                Self::new(ProblemType::TooManyInstances, refusal.to_string()).retry_after(60)
            }
            Refusal::TooManyServices(_) => {
                Self::new(ProblemType::TooManyServices, refusal.to_string()).retry_after(60)
            }
        }
    }
}

impl From<OverQuota> for Problem {
    fn from(over: OverQuota) -> Self {
        let cause = match over {
            OverQuota::Instances { .. } => ProblemType::TooManyInstances,
            OverQuota::Required { .. } => ProblemType::TooManyServices,
        };
        Self::new(cause, over.to_string()).retry_after(60)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => refusal.into(),
            error => {
                let detail = hubspoke_chassis::with_causes(&error);
                Self::new(ProblemType::StoreUnavailable, detail).retry_after(1)
            }
        }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let cause = match denied {
            Denied::Address(_) | Denied::NotAnAddress(_) => ProblemType::AddressNotAllowed,
            Denied::ControlHost { .. }
            | Denied::ReservedName(_)
            | Denied::TooManyRequired { .. }
            | Denied::MetaTooLong { .. }
            | Denied::MetaTooMany(_)
            | Denied::IdTooLong(_)
            | Denied::Id
            | Denied::PushKey => ProblemType::InvalidRegistration,
            Denied::TooFast => ProblemType::RateLimited,
        };
        let problem = Self::new(cause, denied.to_string());
        if denied == Denied::TooFast { problem.retry_after(1) } else { problem }
    }
}
