//! The standard `OTEL_…` variables as values. An empty variable is unset.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::trace::Sampler;
use percent_encoding::percent_decode_str;

use crate::config::{ConfigError, Telemetry};

/// Where one signal is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) headers: HashMap<String, String>,
    pub(super) timeout: Duration,
    pub(super) gzip: bool,
}

/// The queue of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueLimits {
    /// Items that may be queued; more are lost, and counted.
    pub(super) size: usize,
    /// Items in one export.
    pub(super) batch: usize,
    /// How long an item may wait for a batch to fill.
    pub(super) delay: Duration,
}

/// The process's environment.
#[derive(Clone, Copy)]
pub(super) struct OtelEnv<'a>(pub(super) &'a [(String, String)]);

impl<'a> OtelEnv<'a> {
    pub(super) fn get(self, name: &str) -> Option<&'a str> {
        let value = self.0.iter().find(|(known, _)| known == name)?.1.trim();
        (!value.is_empty()).then_some(value)
    }

    /// The signal's own variable or the one for all signals, with its name.
    fn of_signal(self, signal: &str, what: &str) -> Option<(String, &'a str)> {
        [format!("OTEL_EXPORTER_OTLP_{signal}_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")]
            .into_iter()
            .find_map(|name| self.get(&name).map(|value| (name, value)))
    }

    pub(super) fn flag(self, name: &str) -> Result<bool, ConfigError> {
        match self.get(name) {
            None => Ok(false),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(text) => Err(invalid(name, text, "expected true or false")),
        }
    }

    fn number<T: FromStr<Err: Display>>(self, name: &str, default: T) -> Result<T, ConfigError> {
        let Some(text) = self.get(name) else { return Ok(default) };
        text.parse().map_err(|error| invalid(name, text, error))
    }

    pub(super) fn millis(self, name: &str, default: u64) -> Result<Duration, ConfigError> {
        match self.number(name, default)? {
            0 => Err(invalid(name, "0", "must be at least 1 (milliseconds)")),
            millis => Ok(Duration::from_millis(millis)),
        }
    }

    /// The queue of a batch processor (`BSP`, `BLRP`), with its default delay in milliseconds.
    pub(super) fn queue(self, processor: &str, delay: u64) -> Result<QueueLimits, ConfigError> {
        let count = |what: &str, default: usize| {
            let name = format!("OTEL_{processor}_{what}");
            match self.number(&name, default)? {
                0 => Err(invalid(&name, "0", "must be at least 1")),
                count => Ok(count),
            }
        };
        let size = count("MAX_QUEUE_SIZE", 2048)?;
        Ok(QueueLimits {
            size,
            batch: count("MAX_EXPORT_BATCH_SIZE", 512.min(size))?,
            delay: self.millis(&format!("OTEL_{processor}_SCHEDULE_DELAY"), delay)?,
        })
    }

    /// Where a signal is sent; `None` if it is not exported.
    pub(super) fn endpoint(
        self,
        signal: &str,
        path: &str,
        config: &'a Telemetry,
    ) -> Result<Option<Endpoint>, ConfigError> {
        let Some(setting) = self.endpoint_setting(signal, config) else { return Ok(None) };
        let exporter = format!("OTEL_{signal}_EXPORTER");
        match self.get(&exporter) {
            None | Some("otlp") => {}
            // Prometheus can scrape /metrics in any case.
            Some("prometheus") if signal == "METRICS" => return Ok(None),
            Some("none") => return Ok(None),
            Some(other) => return Err(invalid(&exporter, other, "expected otlp or none")),
        }
        let url = setting.url(path)?;
        if let Some((name, protocol)) = self.of_signal(signal, "PROTOCOL")
            && protocol != "http/protobuf"
        {
            return Err(invalid(&name, protocol, "only http/protobuf is supported"));
        }
        let gzip = match self.of_signal(signal, "COMPRESSION") {
            None | Some((_, "none")) => false,
            Some((_, "gzip")) => true,
            Some((name, other)) => return Err(invalid(&name, other, "expected gzip or none")),
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

    /// The endpoint that is set for a signal, if any.
    pub(super) fn endpoint_setting(self, signal: &str, config: &'a Telemetry) -> Option<EndpointSetting<'a>> {
        let own = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
        if let Some(text) = self.get(&own) {
            return Some(EndpointSetting { name: own, text, is_base: false });
        }
        let all = "OTEL_EXPORTER_OTLP_ENDPOINT";
        if let Some(text) = self.get(all) {
            return Some(EndpointSetting { name: all.to_owned(), text, is_base: true });
        }
        let text = config.otlp_endpoint.as_deref().map(str::trim).filter(|base| !base.is_empty())?;
        Some(EndpointSetting { name: "telemetry.otlp_endpoint".to_owned(), text, is_base: true })
    }

    pub(super) fn sampler(self) -> Result<Sampler, ConfigError> {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        const ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
        const EXPECTED: &str =
            "expected always_on, always_off or traceidratio, or one of them after parentbased_";
        let name = self.get(NAME).unwrap_or("parentbased_always_on");
        let (is_parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let root = match root {
            "always_on" => Sampler::AlwaysOn,
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => {
                let ratio = self.number(ARG, 1.0)?;
                if !(0.0..=1.0).contains(&ratio) {
                    return Err(invalid(ARG, &ratio.to_string(), "must be from 0 to 1"));
                }
                Sampler::TraceIdRatioBased(ratio)
            }
            _ => return Err(invalid(NAME, name, EXPECTED)),
        };
        Ok(if is_parent_based { Sampler::ParentBased(Box::new(root)) } else { root })
    }

    pub(super) fn temporality(self) -> Result<Temporality, ConfigError> {
        const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        match self.get(NAME).map(str::to_ascii_lowercase).as_deref() {
            None | Some("cumulative") => Ok(Temporality::Cumulative),
            Some("delta") => Ok(Temporality::Delta),
            Some("lowmemory") => Ok(Temporality::LowMemory),
            Some(other) => Err(invalid(NAME, other, "expected cumulative, delta or lowmemory")),
        }
    }

    /// Errors don't show the values, which are usually tokens.
    fn headers(self, name: &str) -> Result<HashMap<String, String>, ConfigError> {
        let headers = self.pairs(name)?;
        let is_header = |(name, value): (&String, &String)| {
            name.parse::<http::HeaderName>().is_ok() && value.parse::<http::HeaderValue>().is_ok()
        };
        if headers.iter().all(is_header) {
            Ok(headers)
        } else {
            Err(ConfigError::new(format!("{name}: contains an invalid header")))
        }
    }

    /// `key=value,key=value`, each percent-encoded.
    pub(super) fn pairs(self, name: &str) -> Result<HashMap<String, String>, ConfigError> {
        let decoded = |text: &str| Some(percent_decode_str(text.trim()).decode_utf8().ok()?.into_owned());
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=')?;
            Some((decoded(key)?, decoded(value)?)).filter(|(key, _)| !key.is_empty())
        };
        let list = self.get(name).unwrap_or_default().split(',').filter(|entry| !entry.trim().is_empty());
        let pairs: Option<HashMap<_, _>> = list.map(pair).collect();
        pairs.ok_or_else(|| ConfigError::new(format!("{name}: expected key=value,key=value")))
    }
}

/// An endpoint as it was set.
pub(super) struct EndpointSetting<'a> {
    /// The variable or key.
    name: String,
    text: &'a str,
    /// Whether the signals' paths are below it.
    is_base: bool,
}

impl EndpointSetting<'_> {
    fn url(&self, path: &str) -> Result<String, ConfigError> {
        let url = match self.is_base {
            true => format!("{}{path}", self.text.trim_end_matches('/')),
            false => self.text.to_owned(),
        };
        let why = match reqwest::Url::parse(&url) {
            Ok(parsed) if parsed.scheme() == "http" && parsed.has_host() => return Ok(url),
            Ok(parsed) if parsed.scheme() == "https" => {
                "https is not supported; use http to a collector nearby, which can forward over TLS"
            }
            _ => "not a valid URL; expected http://host:4318",
        };
        Err(invalid(&self.name, self.text, why))
    }
}

pub(super) fn invalid(name: &str, value: &str, why: impl Display) -> ConfigError {
    ConfigError::new(format!("{name}: {value:?}: {why}"))
}
