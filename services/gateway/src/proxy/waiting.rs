//! A request waits for an instance: its service has none at the moment, because the only one is being replaced, or has
//! just been started. Its body is not read meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::active::ActiveRequest;
use super::attempt_context::AttemptContext;
use crate::replay::ReplayState;
use crate::upstream::{UpstreamService, WaitSlot};

/// An instance that refused a connection may have started again at the same address without registering anew (Caddy's
/// `lb_try_interval`).
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// A request that waits; it counts until this is dropped.
pub(super) struct Waiting {
    slot: WaitSlot,
    deadline: Instant,
}

impl Waiting {
    /// `None` if the request may not wait: it has already waited for its time, its service has had no instance for long,
    /// or too many wait.
    pub(super) fn begin(
        context: &AttemptContext,
        service: &UpstreamService,
        active: &ActiveRequest,
        now: Instant,
    ) -> Option<Self> {
        let deadline = (active.began() + context.settings.wait).min(context.deadline);
        if now >= deadline || !service.is_remembered(now) {
            return None;
        }
        let slot = service.wait()?;
        let is_kept = active.body().is_none_or(ReplayState::reserve_ahead);
        is_kept.then_some(Self { slot, deadline })
    }

    /// Waits until the service has other instances, or for a moment. False once the time is over, or the client has
    /// gone: while a body is not read, its connection does not notice that.
    pub(super) async fn next(
        &self,
        context: &AttemptContext,
        service: &mut Arc<UpstreamService>,
        body: Option<&ReplayState>,
    ) -> bool {
        let changed = self.slot.changed();
        if !refresh(context, service) {
            let until = (Instant::now() + RETRY_INTERVAL).min(self.deadline);
            let _ = tokio::time::timeout_at(until.into(), changed).await; // whichever comes first
            refresh(context, service);
        }
        Instant::now() < self.deadline && !body.is_some_and(ReplayState::is_cut_off)
    }
}

/// Takes the service of the current table. Returns whether it is another one.
pub(super) fn refresh(context: &AttemptContext, service: &mut Arc<UpstreamService>) -> bool {
    let table = context.client.gateway.table.load();
    let Some(current) = table.any_service(&service.name).filter(|current| !Arc::ptr_eq(current, service))
    else {
        return false;
    };
    *service = current.clone();
    true
}
