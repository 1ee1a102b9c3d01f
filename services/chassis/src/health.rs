//! `/livez` and `/readyz`. Live: the process answers, independent of other services. Ready: every named condition is
//! met, so callers may send requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;

use hubspoke_protocol::problem::ProblemType;
use parking_lot::RwLock;

use crate::problem::Problem;

/// Answers 200 while the process runs.
pub const LIVEZ_PATH: &str = "/livez";
/// Answers 200 while the process takes requests, else 503 with the reasons.
pub const READYZ_PATH: &str = "/readyz";

/// Named conditions, each met or unmet for a reason. Clones share them.
///
/// ```
/// let readiness = hubspoke_chassis::Readiness::default();
/// assert_eq!(readiness.why_not(), None);
/// readiness.unmet("registry", "not registered yet");
/// readiness.unmet("disk", "full");
/// assert_eq!(readiness.why_not().as_deref(), Some("disk: full; registry: not registered yet"));
/// readiness.met("disk");
/// readiness.met("registry");
/// assert_eq!(readiness.why_not(), None);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<RwLock<BTreeMap<&'static str, String>>>);

impl Readiness {
    /// The condition is met.
    pub fn met(&self, condition: &'static str) {
        self.0.write().remove(condition);
    }

    /// The condition is not met. `/readyz` shows `why`.
    pub fn unmet(&self, condition: &'static str, why: impl Into<String>) {
        self.0.write().insert(condition, why.into());
    }

    /// The reasons why the process is not ready; `None` if it is.
    pub fn why_not(&self) -> Option<String> {
        let unmet = self.0.read();
        let reasons: Vec<_> = unmet.iter().map(|(condition, why)| format!("{condition}: {why}")).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// `GET /livez` and `GET /readyz`.
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
