//! Registries that share an etcd: a real one on loopback. Skipped on machines without it.

mod faults;
mod history;
mod migration;
mod several;
mod single;
mod takeover;

use hubspoke_protocol::{CatalogView, InstanceState, InstanceView};
use hubspoke_testkit::eventually;

use super::fixture::TestRegistry;

/// What all registries must agree about.
fn essence(view: &CatalogView) -> Vec<(String, String, String, InstanceState)> {
    let services = view.services.values().flatten();
    let live = services.filter(|instance| instance.state != InstanceState::Removed);
    let of = |instance: &InstanceView| {
        let info = &instance.info;
        (info.name.clone(), info.addr.clone(), info.id().to_owned(), instance.state)
    };
    live.map(of).collect()
}

/// Waits until all registries show the same.
async fn agree(registries: &[&TestRegistry]) {
    eventually("all registries show the same", || async {
        let first = registries[0].view().await;
        for other in &registries[1..] {
            let view = other.view().await;
            if view.revision.epoch != first.revision.epoch || essence(&view) != essence(&first) {
                return false;
            }
        }
        true
    })
    .await;
}
