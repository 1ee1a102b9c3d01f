//! The configuration and the standard `OTEL_…` variables, checked.
//!
//! Without an endpoint nothing is exported, and the variables are ignored: they may be meant for other programs. With
//! one, a value that can't be honoured is ignored with a warning, and only an endpoint that nothing could be sent to is
//! refused. The SDK reads some of the variables itself; the values it gets from here are the same and take precedence.

use std::collections::HashMap;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::resource::{ResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::Sampler;

use super::otel_env::{Endpoint, OtelEnv, QueueLimits};
use crate::config::{ConfigError, Process, Telemetry};

const SERVICE_NAME: &str = "service.name";
const SERVICE_INSTANCE: &str = "service.instance.id";
const SERVICE_VERSION: &str = "service.version";
/// The specification's defaults, in milliseconds.
const SPANS_DELAY: u64 = 5_000;
const RECORDS_DELAY: u64 = 1_000;
const METRICS_INTERVAL: u64 = 60_000;

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
    /// A line for each variable whose value is ignored, to be logged once telemetry runs.
    pub(super) warnings: Vec<String>,
}

impl TelemetrySettings {
    /// Reads the configuration and the variables.
    ///
    /// # Errors
    /// If nothing could be sent to an endpoint; names the variable.
    pub fn read(
        process: &Process,
        config: &Telemetry,
        vars: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let (env, none) = (OtelEnv::new(vars), OtelEnv::new(&[]));
        // Propagation does not depend on exporting.
        let (trace_context, baggage) = env.propagators();
        let mut settings = Self {
            process: *process,
            log: config.log.clone(),
            traces: None,
            metrics: None,
            logs: None,
            sampler: none.sampler(),
            heartbeats: config.heartbeat_traces,
            trace_context,
            baggage,
            spans: none.queue("BSP", SPANS_DELAY),
            records: none.queue("BLRP", RECORDS_DELAY),
            metrics_interval: Duration::from_millis(METRICS_INTERVAL),
            temporality: Temporality::Cumulative,
            resource: HashMap::new(),
            warnings: Vec::new(),
        };
        let signals = ["TRACES", "METRICS", "LOGS"];
        if signals.iter().all(|signal| env.endpoint_setting(signal, config).is_none()) {
            return Ok(settings);
        }
        if !env.flag("OTEL_SDK_DISABLED") {
            settings.traces = env.endpoint("TRACES", "/v1/traces", config)?;
            settings.metrics = env.endpoint("METRICS", "/v1/metrics", config)?;
            settings.logs = env.endpoint("LOGS", "/v1/logs", config)?;
        }
        if settings.exports() {
            settings.spans = env.queue("BSP", SPANS_DELAY);
            settings.records = env.queue("BLRP", RECORDS_DELAY);
            settings.metrics_interval = env.millis("OTEL_METRIC_EXPORT_INTERVAL", METRICS_INTERVAL);
            settings.sampler = env.sampler();
            settings.temporality = env.temporality();
            settings.resource = env.resource_attributes();
            if let Some(name) = env.get("OTEL_SERVICE_NAME") {
                settings.resource.insert(SERVICE_NAME.to_owned(), name.to_owned());
            }
        }
        settings.warnings = env.into_warnings();
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
}

#[cfg(test)]
mod tests;
