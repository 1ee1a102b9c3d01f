//! What gateways count for instances that report no load themselves.

use hubspoke_protocol::{EVERY_SERVICE, UpstreamCount};

use super::event::EventOutcome;
use super::key::InstanceKey;
use super::transition::Transition;

impl Transition<'_> {
    /// Counts of a member, for instances that it may call. They are shown with the instance's next heartbeat.
    pub(super) fn upstream_counted(&mut self, by: &InstanceKey, counts: Vec<UpstreamCount>) -> EventOutcome {
        let Some(caller) = self.catalog.get(by) else { return EventOutcome::Unknown };
        let info = caller.info.clone();
        let may_call = |service: &str| {
            info.required_services.iter().any(|required| required == EVERY_SERVICE || required == service)
        };
        for count in counts.into_iter().filter(|count| may_call(&count.service)) {
            let key = InstanceKey::new(&count.service, &count.addr);
            if let Some(instance) = self.catalog.get_mut(&key) {
                instance.count(&by.addr, count.load);
            }
        }
        EventOutcome::Unchanged
    }
}
