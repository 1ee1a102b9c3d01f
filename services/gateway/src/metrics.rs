//! The gateway's instruments, which read its counters when `/metrics` is scraped.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use hubspoke_chassis::Metrics;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use crate::gateway::Gateway;
use crate::upstream::{Instance, UpstreamService};

/// Most series of one instrument: as many as the registry has services, or some thousand instances with several
/// statuses each. Memory for all of them is reserved, some 33 bytes each.
const MAX_SERIES: usize = 20_000;

/// Raises the series limit of instruments that have series per service or instance, which a large catalogue would
/// exceed. Must be called before the instruments are created. Series beyond the limit are counted as one.
pub(crate) fn allow_series(metrics: &Metrics) {
    const PER_SERVICE: [&str; 8] = [
        "hub.gateway.ejected",
        "hub.gateway.ejections",
        "hub.gateway.failures",
        "hub.gateway.in_flight",
        "hub.gateway.instances",
        "hub.gateway.request.duration",
        "hub.gateway.requests",
        "hub.gateway.retries",
    ];
    const PER_INSTANCE: [&str; 5] = [
        "hub.gateway.connections.opened",
        "hub.gateway.instance_failures",
        "hub.gateway.picks",
        "hub.gateway.pooled",
        "hub.gateway.replies",
    ];
    PER_SERVICE.into_iter().chain(PER_INSTANCE).for_each(|name| metrics.allow_series(name, MAX_SERIES));
}

/// Creates the instruments. They hold the gateway weakly, so a stopped one reports nothing.
pub(crate) fn instruments(meter: &Meter, gateway: &Arc<Gateway>) {
    let instruments = GatewayInstruments { meter, gateway: Arc::downgrade(gateway) };
    instruments.counter("replies", "{reply}", "Replies of instances, by status", |gateway, observe| {
        per_instance(gateway, |instance, labels| {
            for (status, count) in instance.stats.replies() {
                observe(count, &[labels, &[KeyValue::new("status", status)]].concat());
            }
        });
    });
    instruments.counter(
        "picks",
        "{pick}",
        "Attempts for which the instance was picked",
        |gateway, observe| {
            per_instance(gateway, |instance, labels| observe(instance.stats.picks.load(Relaxed), labels));
        },
    );
    instruments.counter("instance_failures", "{attempt}", "Failed attempts", |gateway, observe| {
        per_instance(gateway, |instance, labels| observe(instance.stats.failures.load(Relaxed), labels));
    });
    instruments.counter(
        "connections.opened",
        "{connection}",
        "Connections opened to instances; all other attempts reused one",
        |gateway, observe| {
            per_instance(gateway, |instance, labels| {
                observe(instance.stats.connections_opened.load(Relaxed), labels);
            });
        },
    );
    instruments.counter(
        "failures",
        "{request}",
        "Requests answered by the gateway itself, by cause",
        |gateway, observe| {
            per_service(gateway, |service, label| {
                for (cause, count) in service.stats().failures.iter() {
                    observe(count, &[label.clone(), KeyValue::new("cause", cause.name())]);
                }
            });
        },
    );
    instruments.counter(
        "refusals",
        "{request}",
        "Requests refused before a service was matched, by cause",
        |gateway, observe| {
            for (cause, count) in gateway.refusals.iter() {
                observe(count, &[KeyValue::new("cause", cause.name())]);
            }
        },
    );
    instruments.counter("requests", "{request}", "Requests", |gateway, observe| {
        per_service(gateway, |service, label| observe(service.stats().requests.load(Relaxed), &[label]));
    });
    instruments.counter("retries", "{attempt}", "Attempts after the first", |gateway, observe| {
        per_service(gateway, |service, label| observe(service.stats().retries.load(Relaxed), &[label]));
    });
    instruments.counter("ejections", "{ejection}", "Ejections of instances", |gateway, observe| {
        per_service(gateway, |service, label| observe(service.stats().ejections.load(Relaxed), &[label]));
    });
    instruments.gauge("in_flight", "{request}", "Requests in flight", |gateway, observe| {
        per_service(gateway, |service, label| observe(service.in_flight() as u64, &[label]));
    });
    instruments.gauge("ejected", "{instance}", "Instances that are ejected now", |gateway, observe| {
        per_service(gateway, |service, label| observe(service.ejected() as u64, &[label]));
    });
    instruments.gauge("instances", "{instance}", "Registered instances", |gateway, observe| {
        per_service(gateway, |service, label| observe(service.instances.len() as u64, &[label]));
    });
    instruments.gauge("pooled", "{connection}", "Idle connections to instances", |gateway, observe| {
        per_instance(gateway, |instance, labels| observe(instance.idle_connections() as u64, labels));
    });
    instruments.gauge("connections", "{connection}", "Open client connections", |gateway, observe| {
        observe(gateway.connections.load(Relaxed) as u64, &[]);
    });
}

type Observe<'a> = dyn FnMut(u64, &[KeyValue]) + 'a;

struct GatewayInstruments<'a> {
    meter: &'a Meter,
    gateway: Weak<Gateway>,
}

impl GatewayInstruments<'_> {
    fn counter(
        &self,
        name: &str,
        unit: &'static str,
        description: &'static str,
        read: impl Fn(&Gateway, &mut Observe<'_>) + Send + Sync + 'static,
    ) {
        let gateway = self.gateway.clone();
        self.meter
            .u64_observable_counter(format!("hub.gateway.{name}"))
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |observer| {
                if let Some(gateway) = gateway.upgrade() {
                    read(&gateway, &mut |value, labels| observer.observe(value, labels));
                }
            })
            .build();
    }

    fn gauge(
        &self,
        name: &str,
        unit: &'static str,
        description: &'static str,
        read: impl Fn(&Gateway, &mut Observe<'_>) + Send + Sync + 'static,
    ) {
        let gateway = self.gateway.clone();
        self.meter
            .u64_observable_gauge(format!("hub.gateway.{name}"))
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |observer| {
                if let Some(gateway) = gateway.upgrade() {
                    read(&gateway, &mut |value, labels| observer.observe(value, labels));
                }
            })
            .build();
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
