//! `/livez` and `/readyz`. Live: the process answers at all; never depends on others. Ready: every named condition
//! holds, so a caller may send work.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::State;
use axum::routing::get;

use hubspoke_protocol::problem::ProblemType;

use crate::problem::Problem;

/// Where to ask whether the process answers.
pub const LIVEZ_PATH: &str = "/livez";
/// Where to ask whether it takes work.
pub const READYZ_PATH: &str = "/readyz";

/// Named conditions, each met or not with a reason. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<RwLock<BTreeMap<&'static str, String>>>);

impl Readiness {
    /// The condition holds.
    pub fn met(&self, condition: &'static str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(condition);
    }

    /// The condition does not hold; `why` is shown to whoever asks.
    pub fn unmet(&self, condition: &'static str, why: impl Into<String>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(condition, why.into());
    }

    /// Why the process is not ready; `None` where it is.
    pub fn why_not(&self) -> Option<String> {
        let unmet = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let reasons: Vec<_> = unmet.iter().map(|(condition, why)| format!("{condition}: {why}")).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// The two routes.
    pub fn routes(&self) -> Router {
        Router::new()
            .route(LIVEZ_PATH, get(async || "live\n"))
            .route(READYZ_PATH, get(ready))
            .with_state(self.clone())
    }
}

async fn ready(State(readiness): State<Readiness>) -> Result<&'static str, Problem> {
    match readiness.why_not() {
        None => Ok("ready\n"),
        Some(why) => Err(Problem::new(ProblemType::NotReady, format!("not ready: {why}")).retry_after(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_every_condition_holds() {
        let readiness = Readiness::default();
        assert_eq!(readiness.why_not(), None);
        readiness.unmet("registry", "not registered yet");
        readiness.unmet("disk", "full");
        assert_eq!(readiness.why_not().as_deref(), Some("disk: full; registry: not registered yet"));
        readiness.met("disk");
        readiness.met("registry");
        assert_eq!(readiness.why_not(), None);
    }
}
