//! Why a request is refused, and the problem document for it.

use hubspoke_protocol::problem::ProblemType;
use jiff::Timestamp;

use crate::problem::Problem;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// It has no token.
    #[error("this request requires a token (Authorization: Bearer TOKEN)")]
    Missing,
    /// Its token is not known.
    #[error("the token is unknown here, or it was revoked")]
    Unknown,
    /// Its token has ended.
    #[error("the token {name} expired at {at}")]
    Expired {
        /// The token's name.
        name: String,
        /// When it ended.
        at: Timestamp,
    },
    /// Its token is for something else.
    #[error("{subject} may not {right}")]
    NotPermitted {
        /// The sender of the request.
        subject: String,
        /// The action that it asked for.
        right: String,
    },
}

impl Denied {
    /// Every reason, as metrics name it.
    pub(super) const REASONS: [&'static str; 4] = ["missing", "unknown", "expired", "not_permitted"];

    /// The position of the reason in [`Self::REASONS`].
    pub(super) fn reason(&self) -> usize {
        match self {
            Self::Missing => 0,
            Self::Unknown => 1,
            Self::Expired { .. } => 2,
            Self::NotPermitted { .. } => 3,
        }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let cause = match denied {
            Denied::Missing | Denied::Unknown | Denied::Expired { .. } => ProblemType::InvalidToken,
            Denied::NotPermitted { .. } => ProblemType::NotPermitted,
        };
        Self::new(cause, denied.to_string())
    }
}
