use hubspoke_protocol::problem::ProblemType;

use crate::problem::Problem;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// A target that is neither a path nor a URL.
    #[error("the request target must begin with a slash")]
    Target,
    /// HTTP/1.1 without `Host`, or any version with several.
    #[error("a request needs exactly one Host")]
    HostCount,
    /// `Host` is invalid.
    #[error("Host is not a valid host with an optional port")]
    HostSyntax,
    /// HTTP/2 with two hosts.
    #[error("Host and :authority differ")]
    HostsDiffer,
    /// The request is for a host that is not this service.
    #[error("this service is not known as {0}; if it should be, add the name to allowed_hosts")]
    UnknownHost(String),
    /// A page of another origin sent the request.
    #[error("the request was made by a web page of another site")]
    CrossSite,
}

impl SiteError {
    /// The cause that the response names.
    pub fn problem_type(&self) -> ProblemType {
        match self {
            Self::HostCount | Self::HostSyntax | Self::HostsDiffer => ProblemType::BadHost,
            Self::Target => ProblemType::BadTarget,
            Self::UnknownHost(_) => ProblemType::UnknownHost,
            Self::CrossSite => ProblemType::CrossSite,
        }
    }
}

impl From<SiteError> for Problem {
    fn from(error: SiteError) -> Self {
        Self::new(error.problem_type(), error.to_string())
    }
}
