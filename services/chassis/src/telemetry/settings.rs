//! What the configuration and the standard `OTEL_…` variables ask for. Pure: the variables come in as values.
//!
//! Nothing is exported where no endpoint is set, and variables that are there for other programs are let be then,
//! whatever they say. Where one is, whatever could not be honoured (a protocol that is
//! not spoken, TLS, an unknown sampler) is refused here, at the start: the alternative is telemetry that gets lost
//! without a word. An empty variable is an unset one. The SDK reads some of these variables itself; the values that
//! it is given here take precedence over that and are the same.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::resource::{ResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::Sampler;
use percent_encoding::percent_decode_str;

use crate::config::{ConfigError, Process, Telemetry};

const SERVICE_NAME: &str = "service.name";
const SERVICE_INSTANCE: &str = "service.instance.id";
const SERVICE_VERSION: &str = "service.version";

/// Everything that telemetry needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) process: Process,
    /// An env-filter, for stderr and for the logs that are exported.
    pub(super) log: String,
    pub(super) traces: Option<Endpoint>,
    pub(super) metrics: Option<Endpoint>,
    pub(super) logs: Option<Endpoint>,
    pub(super) sampler: Sampler,
    /// Share of heartbeats that are traced, from 0 to 1.
    pub(super) heartbeats: f64,
    pub(super) trace_context: bool,
    pub(super) baggage: bool,
    pub(super) spans: Queue,
    pub(super) records: Queue,
    pub(super) metrics_interval: Duration,
    pub(super) temporality: Temporality,
    /// Resource attributes set from outside; they win over ours.
    resource: HashMap<String, String>,
}

/// Where one signal goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) headers: HashMap<String, String>,
    pub(super) timeout: Duration,
    pub(super) gzip: bool,
}

/// What waits to be exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Queue {
    /// Items that may wait; what comes on top is lost, and counted.
    pub(super) size: usize,
    /// Items sent in one go.
    pub(super) batch: usize,
    /// How long an item waits for company.
    pub(super) delay: Duration,
}

impl Settings {
    /// Reads the configuration and the variables.
    ///
    /// # Errors
    /// Where something is asked for that can't be done; names the variable.
    pub fn read(
        process: &Process,
        config: &Telemetry,
        vars: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let vars = Vars(vars);
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
            spans: Vars(&[]).queue("BSP", 5_000)?,
            records: Vars(&[]).queue("BLRP", 1_000)?,
            metrics_interval: Duration::from_secs(60),
            temporality: Temporality::Cumulative,
            resource: HashMap::new(),
        };
        // What is passed on is independent of what is exported.
        let propagators = settings.propagate(vars.get("OTEL_PROPAGATORS"));
        let signals = ["TRACES", "METRICS", "LOGS"];
        if signals.iter().all(|signal| vars.endpoint_given(signal, config).is_none()) {
            return Ok(settings);
        }
        propagators?;
        if vars.flag("OTEL_SDK_DISABLED")? {
            return Ok(settings);
        }
        settings.spans = vars.queue("BSP", 5_000)?;
        settings.records = vars.queue("BLRP", 1_000)?;
        settings.metrics_interval = vars.millis("OTEL_METRIC_EXPORT_INTERVAL", 60_000)?;
        settings.traces = vars.endpoint("TRACES", "/v1/traces", config)?;
        settings.metrics = vars.endpoint("METRICS", "/v1/metrics", config)?;
        settings.logs = vars.endpoint("LOGS", "/v1/logs", config)?;
        if settings.exports() {
            settings.sampler = vars.sampler()?;
            settings.temporality = vars.temporality()?;
            settings.resource = vars.pairs("OTEL_RESOURCE_ATTRIBUTES")?;
            if let Some(name) = vars.get("OTEL_SERVICE_NAME") {
                settings.resource.insert(SERVICE_NAME.to_owned(), name.to_owned());
            }
        }
        Ok(settings)
    }

    /// Whether anything leaves the process.
    pub fn exports(&self) -> bool {
        self.traces.is_some() || self.metrics.is_some() || self.logs.is_some()
    }

    /// Who speaks. What was set from outside is left as it is.
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

    /// Passes on what a list names, or, where that holds something unknown, what it would without a list.
    fn propagate(&mut self, list: Option<&str>) -> Result<(), ConfigError> {
        let Some(list) = list else { return Ok(()) };
        let (mut trace_context, mut baggage) = (false, false);
        for name in list.split(',').map(str::trim) {
            match name {
                "tracecontext" => trace_context = true,
                "baggage" => baggage = true,
                "none" => {}
                _ => return Err(wrong("OTEL_PROPAGATORS", name, "known here: tracecontext, baggage, none")),
            }
        }
        (self.trace_context, self.baggage) = (trace_context, baggage);
        Ok(())
    }
}

/// The process's environment.
#[derive(Clone, Copy)]
struct Vars<'a>(&'a [(String, String)]);

impl<'a> Vars<'a> {
    fn get(self, name: &str) -> Option<&'a str> {
        let value = self.0.iter().find(|(known, _)| known == name)?.1.trim();
        (!value.is_empty()).then_some(value)
    }

    /// A signal's own variable, else the one for all, with its name.
    fn of_signal(self, signal: &str, what: &str) -> Option<(String, &'a str)> {
        [format!("OTEL_EXPORTER_OTLP_{signal}_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")]
            .into_iter()
            .find_map(|name| self.get(&name).map(|value| (name, value)))
    }

    fn flag(self, name: &str) -> Result<bool, ConfigError> {
        match self.get(name) {
            None => Ok(false),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(text) => Err(wrong(name, text, "neither true nor false")),
        }
    }

    fn number<T: FromStr<Err: Display>>(self, name: &str, default: T) -> Result<T, ConfigError> {
        let Some(text) = self.get(name) else { return Ok(default) };
        text.parse().map_err(|error| wrong(name, text, error))
    }

    fn millis(self, name: &str, default: u64) -> Result<Duration, ConfigError> {
        match self.number(name, default)? {
            0 => Err(wrong(name, "0", "must be at least 1 (milliseconds)")),
            millis => Ok(Duration::from_millis(millis)),
        }
    }

    fn queue(self, processor: &str, delay: u64) -> Result<Queue, ConfigError> {
        let count = |what: &str, default: usize| {
            let name = format!("OTEL_{processor}_{what}");
            match self.number(&name, default)? {
                0 => Err(wrong(&name, "0", "must be at least 1")),
                count => Ok(count),
            }
        };
        let size = count("MAX_QUEUE_SIZE", 2048)?;
        Ok(Queue {
            size,
            batch: count("MAX_EXPORT_BATCH_SIZE", 512.min(size))?,
            delay: self.millis(&format!("OTEL_{processor}_SCHEDULE_DELAY"), delay)?,
        })
    }

    fn endpoint(
        self,
        signal: &str,
        path: &str,
        config: &'a Telemetry,
    ) -> Result<Option<Endpoint>, ConfigError> {
        let Some(given) = self.endpoint_given(signal, config) else { return Ok(None) };
        let exporter = format!("OTEL_{signal}_EXPORTER");
        match self.get(&exporter) {
            None | Some("otlp") => {}
            // Prometheus reads ours at /metrics anyway.
            Some("prometheus") if signal == "METRICS" => return Ok(None),
            Some("none") => return Ok(None),
            Some(other) => return Err(wrong(&exporter, other, "known here: otlp, none")),
        }
        let url = given.url(path)?;
        if let Some((name, protocol)) = self.of_signal(signal, "PROTOCOL")
            && protocol != "http/protobuf"
        {
            return Err(wrong(&name, protocol, "only http/protobuf is spoken here"));
        }
        let gzip = match self.of_signal(signal, "COMPRESSION") {
            None | Some((_, "none")) => false,
            Some((_, "gzip")) => true,
            Some((name, other)) => return Err(wrong(&name, other, "known here: gzip, none")),
        };
        let timeout = match self.of_signal(signal, "TIMEOUT") {
            Some((name, _)) => self.millis(&name, 0)?,
            None => Duration::from_secs(10),
        };
        let headers = match self.of_signal(signal, "HEADERS") {
            Some((name, _)) => self.headers(&name)?,
            None => HashMap::new(),
        };
        Ok(Some(Endpoint { url, headers, timeout, gzip }))
    }

    /// The endpoint that is set for a signal, if any is.
    fn endpoint_given(self, signal: &str, config: &'a Telemetry) -> Option<Given<'a>> {
        let own = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
        if let Some(text) = self.get(&own) {
            return Some(Given { from: own, text, is_base: false });
        }
        let all = "OTEL_EXPORTER_OTLP_ENDPOINT";
        if let Some(text) = self.get(all) {
            return Some(Given { from: all.to_owned(), text, is_base: true });
        }
        let text = config.otlp_endpoint.as_deref().map(str::trim).filter(|base| !base.is_empty())?;
        Some(Given { from: "telemetry.otlp_endpoint".to_owned(), text, is_base: true })
    }

    fn sampler(self) -> Result<Sampler, ConfigError> {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        let name = self.get(NAME).unwrap_or("parentbased_always_on");
        let (parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let root = match root {
            "always_on" => Sampler::AlwaysOn,
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => {
                let ratio = self.number("OTEL_TRACES_SAMPLER_ARG", 1.0)?;
                if !(0.0..=1.0).contains(&ratio) {
                    return Err(wrong("OTEL_TRACES_SAMPLER_ARG", &ratio.to_string(), "must be from 0 to 1"));
                }
                Sampler::TraceIdRatioBased(ratio)
            }
            _ => {
                let known =
                    "known here: always_on, always_off, traceidratio, each also with parentbased_ in front";
                return Err(wrong(NAME, name, known));
            }
        };
        Ok(if parent_based { Sampler::ParentBased(Box::new(root)) } else { root })
    }

    fn temporality(self) -> Result<Temporality, ConfigError> {
        const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        match self.get(NAME).map(str::to_ascii_lowercase).as_deref() {
            None | Some("cumulative") => Ok(Temporality::Cumulative),
            Some("delta") => Ok(Temporality::Delta),
            Some("lowmemory") => Ok(Temporality::LowMemory),
            Some(other) => Err(wrong(NAME, other, "known here: cumulative, delta, lowmemory")),
        }
    }

    fn headers(self, name: &str) -> Result<HashMap<String, String>, ConfigError> {
        let headers = self.pairs(name)?;
        let is_header = |(name, value): (&String, &String)| {
            name.parse::<http::HeaderName>().is_ok() && value.parse::<http::HeaderValue>().is_ok()
        };
        // The values are not shown: they are tokens, mostly.
        if headers.iter().all(is_header) {
            Ok(headers)
        } else {
            Err(ConfigError::new(format!("{name}: holds what can be no header")))
        }
    }

    /// `key=value,key=value`, each percent-encoded.
    fn pairs(self, name: &str) -> Result<HashMap<String, String>, ConfigError> {
        let decoded = |text: &str| Some(percent_decode_str(text.trim()).decode_utf8().ok()?.into_owned());
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=')?;
            Some((decoded(key)?, decoded(value)?)).filter(|(key, _)| !key.is_empty())
        };
        let list = self.get(name).unwrap_or_default().split(',').filter(|entry| !entry.trim().is_empty());
        let pairs: Option<HashMap<_, _>> = list.map(pair).collect();
        pairs.ok_or_else(|| ConfigError::new(format!("{name}: not of the form key=value,key=value")))
    }
}

/// An endpoint as it was set.
struct Given<'a> {
    /// The variable or key.
    from: String,
    text: &'a str,
    /// Signals stand below it, each at its own path.
    is_base: bool,
}

impl Given<'_> {
    fn url(&self, path: &str) -> Result<String, ConfigError> {
        let url = match self.is_base {
            true => format!("{}{path}", self.text.trim_end_matches('/')),
            false => self.text.to_owned(),
        };
        let why = match reqwest::Url::parse(&url) {
            Ok(parsed) if parsed.scheme() == "http" && parsed.has_host() => return Ok(url),
            Ok(parsed) if parsed.scheme() == "https" => {
                "TLS is not built in; use http to a collector close by, which may use it"
            }
            _ => "no URL: http://host:4318",
        };
        Err(wrong(&self.from, self.text, why))
    }
}

fn wrong(name: &str, value: &str, why: impl Display) -> ConfigError {
    ConfigError::new(format!("{name}: {value:?}: {why}"))
}

#[cfg(test)]
mod tests;
