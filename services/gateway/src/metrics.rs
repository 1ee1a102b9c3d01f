//! The gateway's instruments, which read its counters when `/metrics` is scraped.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use hubspoke_chassis::Metrics;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};

use crate::gateway::Gateway;
use crate::upstream::{Instance, UpstreamService};

/// Maximum number of series per instrument: as many as the registry has services, or some thousand instances with
/// several statuses each. Memory for all of them is reserved, some 33 bytes each.
const MAX_SERIES: usize = 20_000;

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}
use Kind::{Counter, Gauge};

/// Kind, name, unit, description, and how to read the value.
type Instrument<F> = (Kind, &'static str, &'static str, &'static str, F);
type Observe<'a> = dyn FnMut(u64, &[KeyValue]) + 'a;
type ServiceValue = fn(&UpstreamService) -> u64;
type InstanceValue = fn(&Instance) -> u64;
type Values = fn(&Gateway, &mut Observe<'_>);

/// Instruments with one value per service.
const PER_SERVICE: [Instrument<ServiceValue>; 8] = [
    (Counter, "hub.gateway.requests", "{request}", "Requests", |it| it.stats().requests.get()),
    (Counter, "hub.gateway.retries", "{attempt}", "Attempts after the first", |it| it.stats().retries.get()),
    (Counter, "hub.gateway.ejections", "{ejection}", "Ejections", |it| it.stats().ejections.get()),
    (Counter, "hub.gateway.waits", "{request}", "Requests that waited for an instance", |it| {
        it.stats().waits.get()
    }),
    (Gauge, "hub.gateway.waiting", "{request}", "Requests that wait for an instance", |it| {
        it.waiting() as u64
    }),
    (Gauge, "hub.gateway.in_flight", "{request}", "Requests in flight", |it| it.in_flight() as u64),
    (Gauge, "hub.gateway.ejected", "{instance}", "Ejected instances", |it| it.ejected() as u64),
    (Gauge, "hub.gateway.instances", "{instance}", "Registered instances", |it| it.instances.len() as u64),
];

/// Instruments with one value per instance.
const PER_INSTANCE: [Instrument<InstanceValue>; 4] = [
    (Counter, "hub.gateway.picks", "{pick}", "Attempts that picked the instance", |it| it.stats.picks.get()),
    (Counter, "hub.gateway.instance_failures", "{attempt}", "Failed attempts", |it| it.stats.failures.get()),
    (Counter, "hub.gateway.connections.opened", "{connection}", "Connections opened to the instance", |it| {
        it.stats.connections_opened.get()
    }),
    (Gauge, "hub.gateway.pooled", "{connection}", "Idle connections", |it| it.idle_connections() as u64),
];

/// Instruments with other labels.
const OTHERS: [Instrument<Values>; 5] = [
    (Counter, "hub.gateway.replies", "{reply}", "Responses of instances, by status", responses),
    (
        Counter,
        "hub.gateway.failures",
        "{request}",
        "Requests that the gateway answered with an error",
        failures,
    ),
    (Counter, "hub.gateway.refusals", "{request}", "Requests refused before a service was matched", refusals),
    (
        Gauge,
        "hub.gateway.refused_hosts",
        "{host}",
        "Hosts that the service's members ask for and do not get",
        refused_hosts,
    ),
    (Gauge, "hub.gateway.connections", "{connection}", "Open client connections", |gateway, observe| {
        observe(gateway.connections.load(Relaxed) as u64, &[]);
    }),
];

/// Raises the series limit of instruments that have series per service or instance, which a large catalogue would
/// exceed. Must be called before the instruments are created. Series beyond the limit are counted as one.
pub(crate) fn allow_series(metrics: &Metrics) {
    let per_service = PER_SERVICE.iter().map(|(_, name, ..)| *name);
    let per_instance = PER_INSTANCE.iter().map(|(_, name, ..)| *name);
    let others = [
        "hub.gateway.refused_hosts",
        "hub.gateway.failures",
        "hub.gateway.replies",
        "hub.gateway.request.duration",
    ];
    let names = per_service.chain(per_instance).chain(others);
    names.for_each(|name| metrics.allow_series(name, MAX_SERIES));
}

/// Creates the instruments. They hold the gateway weakly, so a stopped one reports nothing.
pub(crate) fn instruments(meter: &Meter, gateway: &Arc<Gateway>) {
    let gateway = &Arc::downgrade(gateway);
    for instrument in PER_SERVICE {
        add(meter, gateway, instrument, |value, gateway, observe| {
            per_service(gateway, |service, label| observe(value(service), &[label]));
        });
    }
    for instrument in PER_INSTANCE {
        add(meter, gateway, instrument, |value, gateway, observe| {
            per_instance(gateway, |instance, labels| observe(value(instance), labels));
        });
    }
    for instrument in OTHERS {
        add(meter, gateway, instrument, |read, gateway, observe| read(gateway, observe));
    }
}

fn add<F: Send + Sync + 'static>(
    meter: &Meter,
    gateway: &Weak<Gateway>,
    (kind, name, unit, description, value): Instrument<F>,
    read: impl Fn(&F, &Gateway, &mut Observe<'_>) + Send + Sync + 'static,
) {
    let gateway = gateway.clone();
    let callback = move |observer: &dyn AsyncInstrument<u64>| {
        if let Some(gateway) = gateway.upgrade() {
            read(&value, &gateway, &mut |value, labels| observer.observe(value, labels));
        }
    };
    match kind {
        Counter => {
            let counter = meter.u64_observable_counter(name).with_unit(unit);
            counter.with_description(description).with_callback(callback).build();
        }
        Gauge => {
            let gauge = meter.u64_observable_gauge(name).with_unit(unit);
            gauge.with_description(description).with_callback(callback).build();
        }
    }
}

fn responses(gateway: &Gateway, observe: &mut Observe<'_>) {
    per_instance(gateway, |instance, labels| {
        for (status, count) in instance.stats.responses() {
            observe(count, &[labels, &[KeyValue::new("status", status)]].concat());
        }
    });
}

fn failures(gateway: &Gateway, observe: &mut Observe<'_>) {
    per_service(gateway, |service, label| {
        for (cause, count) in service.stats().failures.iter() {
            observe(count, &[label.clone(), KeyValue::new("cause", cause.name())]);
        }
    });
}

fn refusals(gateway: &Gateway, observe: &mut Observe<'_>) {
    for (cause, count) in gateway.refusals.iter() {
        observe(count, &[KeyValue::new("cause", cause.name())]);
    }
}

fn refused_hosts(gateway: &Gateway, observe: &mut Observe<'_>) {
    let table = gateway.table.load();
    let mut counts = BTreeMap::<&str, u64>::new();
    table.refused_hosts().iter().for_each(|refusal| *counts.entry(&refusal.service).or_default() += 1);
    for (service, count) in counts {
        observe(count, &[KeyValue::new("service", service.to_owned())]);
    }
}

fn per_service(gateway: &Gateway, mut observe: impl FnMut(&UpstreamService, KeyValue)) {
    for service in gateway.table.load().services() {
        observe(service, KeyValue::new("service", service.name.to_string()));
    }
}

fn per_instance(gateway: &Gateway, mut observe: impl FnMut(&Instance, &[KeyValue])) {
    for instance in gateway.table.load().instances() {
        let label = instance.label.to_str().unwrap_or_default().to_owned();
        let service = KeyValue::new("service", instance.service.to_string());
        observe(instance, &[service, KeyValue::new("instance", label)]);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stats::{DurationHistogram, ServiceStats};

    #[test]
    fn each_of_many_services_has_its_series() {
        let metrics = Metrics::new("gateway", "gateway-1").unwrap();
        allow_series(&metrics);
        let durations = DurationHistogram::new(&metrics.meter());
        let stats: Vec<_> =
            (0..2_500).map(|n| ServiceStats::new(&format!("service-{n}"), &durations)).collect();
        stats.iter().for_each(|stats| stats.record_duration(Duration::from_millis(1)));
        let text = metrics.render();
        let counts =
            text.lines().filter(|line| line.starts_with("hub_gateway_request_duration_seconds_count{"));
        assert_eq!(counts.count(), 2_500);
        assert!(!text.contains("overflow"));
    }
}
