//! The configuration and the standard `OTEL_…` variables, checked.
//!
//! Without an endpoint nothing is exported, and the variables are ignored: they may be meant for other programs. With
//! one, a setting that is not supported (a protocol, TLS, an unknown sampler) is refused at the start, because the
//! alternative is telemetry that is lost silently. The SDK reads some of the variables itself; the values it gets from
//! here are the same and take precedence.

use std::collections::HashMap;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::resource::{ResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::Sampler;

use super::otel_env::{Endpoint, OtelEnv, QueueLimits, invalid};
use crate::config::{ConfigError, Process, Telemetry};

const SERVICE_NAME: &str = "service.name";
const SERVICE_INSTANCE: &str = "service.instance.id";
const SERVICE_VERSION: &str = "service.version";

/// The checked settings of a process's telemetry.
#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    pub(super) process: Process,
    /// An env-filter, for stderr and for exported logs.
    pub(super) log: String,
    pub(super) traces: Option<Endpoint>,
    pub(super) metrics: Option<Endpoint>,
    pub(super) logs: Option<Endpoint>,
    pub(super) sampler: Sampler,
    /// Share of heartbeats that are traced, from 0 to 1.
    pub(super) heartbeats: f64,
    pub(super) trace_context: bool,
    pub(super) baggage: bool,
    pub(super) spans: QueueLimits,
    pub(super) records: QueueLimits,
    pub(super) metrics_interval: Duration,
    pub(super) temporality: Temporality,
    /// Resource attributes from the environment, which override ours.
    resource: HashMap<String, String>,
}

impl TelemetrySettings {
    /// Reads the configuration and the variables.
    ///
    /// # Errors
    /// If a setting is invalid or not supported; names the variable.
    pub fn read(
        process: &Process,
        config: &Telemetry,
        vars: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let env = OtelEnv(vars);
        let mut settings = Self {
            process: *process,
            log: config.log.clone(),
            traces: None,
            metrics: None,
            logs: None,
            sampler: Sampler::ParentBased(Box::new(Sampler::AlwaysOn)),
            heartbeats: config.heartbeat_traces,
            trace_context: true,
            baggage: true,
            spans: OtelEnv(&[]).queue("BSP", 5_000)?,
            records: OtelEnv(&[]).queue("BLRP", 1_000)?,
            metrics_interval: Duration::from_secs(60),
            temporality: Temporality::Cumulative,
            resource: HashMap::new(),
        };
        // Propagation does not depend on exporting.
        let propagators = settings.set_propagators(env.get("OTEL_PROPAGATORS"));
        let signals = ["TRACES", "METRICS", "LOGS"];
        if signals.iter().all(|signal| env.endpoint_setting(signal, config).is_none()) {
            return Ok(settings);
        }
        propagators?;
        if env.flag("OTEL_SDK_DISABLED")? {
            return Ok(settings);
        }
        settings.spans = env.queue("BSP", 5_000)?;
        settings.records = env.queue("BLRP", 1_000)?;
        settings.metrics_interval = env.millis("OTEL_METRIC_EXPORT_INTERVAL", 60_000)?;
        settings.traces = env.endpoint("TRACES", "/v1/traces", config)?;
        settings.metrics = env.endpoint("METRICS", "/v1/metrics", config)?;
        settings.logs = env.endpoint("LOGS", "/v1/logs", config)?;
        if settings.exports() {
            settings.sampler = env.sampler()?;
            settings.temporality = env.temporality()?;
            settings.resource = env.pairs("OTEL_RESOURCE_ATTRIBUTES")?;
            if let Some(name) = env.get("OTEL_SERVICE_NAME") {
                settings.resource.insert(SERVICE_NAME.to_owned(), name.to_owned());
            }
        }
        Ok(settings)
    }

    /// Whether any signal is exported.
    pub fn exports(&self) -> bool {
        self.traces.is_some() || self.metrics.is_some() || self.logs.is_some()
    }

    /// The resource of an instance.
    pub(super) fn resource(&self, service: &str, instance: &str) -> Resource {
        let ours =
            [(SERVICE_NAME, service), (SERVICE_INSTANCE, instance), (SERVICE_VERSION, self.process.version)];
        let ours = ours.into_iter().filter(|(key, _)| !self.resource.contains_key(*key));
        let sdk = TelemetryResourceDetector.detect();
        Resource::builder_empty()
            .with_attributes(sdk.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())))
            .with_attributes(ours.map(|(key, value)| KeyValue::new(key, value.to_owned())))
            .with_attributes(
                self.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())),
            )
            .build()
    }

    /// Sets what is propagated from a list of names. A list with an unknown name changes nothing.
    fn set_propagators(&mut self, list: Option<&str>) -> Result<(), ConfigError> {
        let Some(list) = list else { return Ok(()) };
        let (mut trace_context, mut baggage) = (false, false);
        for name in list.split(',').map(str::trim) {
            match name {
                "tracecontext" => trace_context = true,
                "baggage" => baggage = true,
                "none" => {}
                _ => return Err(invalid("OTEL_PROPAGATORS", name, "expected tracecontext, baggage or none")),
            }
        }
        (self.trace_context, self.baggage) = (trace_context, baggage);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
