//! The gauges that are read when metrics are collected.

use std::sync::{Arc, Weak};

use hubspoke_chassis::Metrics;
use hubspoke_protocol::InstanceState;
use opentelemetry::KeyValue;

use crate::cluster::Status;
use crate::config::Limits;
use crate::dispatch::Dispatcher;

const INSTANCES: &str = "hub.registry.instances";
const STATES: [(InstanceState, &str); 3] = [
    (InstanceState::Passing, "passing"),
    (InstanceState::Suspect, "suspect"),
    (InstanceState::Draining, "draining"),
];

/// Registers the gauges. They do not keep the dispatcher alive.
pub(crate) fn register(metrics: &Metrics, limits: &Limits, dispatcher: &Arc<Dispatcher>) {
    metrics.allow_series(INSTANCES, limits.services.saturating_mul(STATES.len()));
    let meter = &metrics.meter();
    let weak = Arc::downgrade(dispatcher);
    meter
        .u64_observable_gauge(INSTANCES)
        .with_unit("{instance}")
        .with_description("Instances in the catalogue")
        .with_callback(move |observer| {
            with(&weak, |of| {
                let states = STATES.map(|(state, _)| state);
                let census = of.catalog.with(|catalog, _| catalog.census(states));
                for (service, counts) in census {
                    for ((_, name), count) in STATES.into_iter().zip(counts) {
                        let service = KeyValue::new("service", service.to_string());
                        observer.observe(count, &[service, KeyValue::new("state", name)]);
                    }
                }
            });
        })
        .build();
    let gauge = |name: &str, unit: &'static str, description: &'static str, value: fn(&Dispatcher) -> u64| {
        let weak = Arc::downgrade(dispatcher);
        meter
            .u64_observable_gauge(format!("hub.registry.{name}"))
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |observer| with(&weak, |of| observer.observe(value(of), &[])))
            .build();
    };
    gauge("services", "{service}", "Known services", |of| of.catalog.with(|c, _| c.services() as u64));
    gauge("instances.failing", "{instance}", "Instances whose last heartbeat failed", |of| {
        of.catalog.with(|catalog, _| catalog.failing() as u64)
    });
    gauge("instances.held_back", "{instance}", "Instances whose removal self-protection holds back", |of| {
        of.catalog.with(|catalog, now| catalog.protection(now).held_back as u64)
    });
    gauge("protecting", "", "1 while self-protection holds back removals", |of| {
        of.catalog.with(|catalog, now| u64::from(catalog.protection(now).until.is_some()))
    });
    gauge("revision", "{change}", "Changes in this epoch", |of| of.catalog.revision().n);
    gauge("dependents", "{dependent}", "Members that require services", |of| of.notifier.counts().dependents);
    gauge("dependents.behind", "{dependent}", "Members whose last push failed", |of| {
        of.notifier.counts().failing
    });
    gauge("push.queue", "{dependent}", "Members to which a push is in flight or due", |of| {
        of.notifier.counts().delivering
    });
    gauge("watchers", "{watcher}", "Watch streams", |of| of.feed.watchers() as u64);
    let weak = Arc::downgrade(dispatcher);
    meter
        .u64_observable_counter("hub.registry.watchers.cut_off")
        .with_unit("{watcher}")
        .with_description("Watchers that were disconnected because they did not read")
        .with_callback(move |observer| with(&weak, |of| observer.observe(of.feed.cut_off(), &[])))
        .build();
}

/// Registers the gauges of the store that several registries share.
pub(crate) fn register_store(metrics: &Metrics, status: &Arc<Status>) {
    let meter = &metrics.meter();
    let gauge =
        |name: &'static str, unit: &'static str, description: &'static str, value: fn(&Status) -> u64| {
            let weak = Arc::downgrade(status);
            meter
                .u64_observable_gauge(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |observer| {
                    if let Some(status) = weak.upgrade() {
                        observer.observe(value(&status), &[]);
                    }
                })
                .build();
        };
    gauge("hub.registry.etcd_up", "", "1 while etcd answers", |status| u64::from(status.is_up()));
    gauge("hub.registry.registries", "{registry}", "Live registries that share the catalogue", |status| {
        status.registries().len() as u64
    });
}

fn with(dispatcher: &Weak<Dispatcher>, observe: impl FnOnce(&Dispatcher)) {
    if let Some(dispatcher) = dispatcher.upgrade() {
        observe(&dispatcher);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hubspoke_protocol::ServiceInfo;

    use super::*;
    use crate::Settings;
    use crate::exchange::MemberDialer;

    #[tokio::test]
    async fn there_is_a_series_for_each_service_with_instances_and_for_no_other() {
        let (settings, metrics) = (Settings::default(), Metrics::new("registry", "registry-1").unwrap());
        let (dispatcher, _commands) = Dispatcher::new(&settings, 1, &metrics, MemberDialer::default());
        let dispatcher = Arc::new(dispatcher);
        register(&metrics, &settings.limits, &dispatcher);
        for n in 0..2_500 {
            let info = ServiceInfo {
                name: format!("service-{n}"),
                addr: "127.0.0.1:1".to_owned(),
                required_services: vec![format!("nobody-{n}")],
                ..ServiceInfo::default()
            };
            dispatcher.register(info, None, None).unwrap();
            dispatcher.instruments.record_heartbeat(&format!("service-{n}"), true, Duration::from_millis(1));
        }
        let text = metrics.render();
        let series = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(series("hub_registry_instances{"), 2_500 * STATES.len());
        assert_eq!(series("hub_registry_heartbeat_duration_seconds_count{"), 2_500);
        assert!(!text.contains("overflow") && !text.contains("nobody"));
    }
}
