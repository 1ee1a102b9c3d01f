//! The standard `OTEL_…` variables as values, by the OpenTelemetry specification: an empty variable is unset, the names
//! of choices are read in any case, and a value that can't be honoured is ignored with a warning. Operators inject the
//! same variables into every program of a cluster.
//!
//! Only an endpoint that nothing could be sent to is an error.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::trace::Sampler;
use percent_encoding::percent_decode_str;

use super::export_tls::TlsFiles;
use super::grpc;
use crate::config::{ConfigError, Telemetry};

/// Default timeout of an export.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where one signal is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) headers: HashMap<String, String>,
    pub(super) timeout: Duration,
    pub(super) gzip: bool,
    /// Whether the messages are sent over gRPC.
    pub(super) grpc: bool,
    /// For an `https` URL.
    pub(super) tls: Option<TlsFiles>,
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

/// The process's environment, and what was ignored in it.
pub(super) struct OtelEnv<'a> {
    vars: &'a [(String, String)],
    warnings: RefCell<Vec<String>>,
}

impl<'a> OtelEnv<'a> {
    pub(super) fn new(vars: &'a [(String, String)]) -> Self {
        Self { vars, warnings: RefCell::default() }
    }

    /// A line for each value that was ignored.
    pub(super) fn into_warnings(self) -> Vec<String> {
        self.warnings.into_inner()
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let value = self.vars.iter().find(|(known, _)| known == name)?.1.trim();
        (!value.is_empty()).then_some(value)
    }

    /// Notes that a value was ignored; once, though the variable may be read for several signals.
    fn ignore(&self, name: &str, value: &str, why: impl Display) {
        self.warn(format!("{name}: {value:?} is ignored: {why}"));
    }

    fn warn(&self, warning: String) {
        let mut warnings = self.warnings.borrow_mut();
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// The value of the first of these variables that is set and valid.
    fn first<T, E: Display>(&self, names: &[String], parse: impl Fn(&str) -> Result<T, E>) -> Option<T> {
        names.iter().find_map(|name| {
            let text = self.get(name)?;
            parse(text).map_err(|why| self.ignore(name, text, why)).ok()
        })
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        match self.get(name) {
            None => false,
            Some(text) if text.eq_ignore_ascii_case("true") => true,
            Some(text) => {
                if !text.eq_ignore_ascii_case("false") {
                    self.ignore(name, text, "only \"true\" is true");
                }
                false
            }
        }
    }

    fn number<T: FromStr>(&self, name: &str, is_valid: impl Fn(&T) -> bool, expected: &str) -> Option<T> {
        self.first(&[name.to_owned()], |text| text.parse().ok().filter(&is_valid).ok_or(expected))
    }

    pub(super) fn millis(&self, name: &str, default: u64) -> Duration {
        let millis = self.number(name, |millis: &u64| *millis > 0, "expected milliseconds, at least 1");
        Duration::from_millis(millis.unwrap_or(default))
    }

    /// The queue of a batch processor (`BSP`, `BLRP`), with its default delay in milliseconds.
    pub(super) fn queue(&self, processor: &str, delay: u64) -> QueueLimits {
        let count = |what: &str, default: usize| {
            let name = format!("OTEL_{processor}_{what}");
            self.number(&name, |count: &usize| *count > 0, "expected a number, at least 1").unwrap_or(default)
        };
        let size = count("MAX_QUEUE_SIZE", 2048);
        QueueLimits {
            size,
            batch: count("MAX_EXPORT_BATCH_SIZE", 512).min(size),
            delay: self.millis(&format!("OTEL_{processor}_SCHEDULE_DELAY"), delay),
        }
    }

    /// Where a signal is sent; `None` if it is not exported.
    ///
    /// # Errors
    /// If nothing could be sent to the endpoint.
    pub(super) fn endpoint(
        &self,
        signal: &str,
        path: &str,
        config: &'a Telemetry,
    ) -> Result<Option<Endpoint>, ConfigError> {
        let Some(setting) = self.endpoint_setting(signal, config) else { return Ok(None) };
        if !self.exports_by_otlp(signal) {
            return Ok(None);
        }
        // The signal's own variable, then the one for all signals.
        let names = |what: &str| {
            [format!("OTEL_EXPORTER_OTLP_{signal}_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")]
        };
        let grpc = self.first(&names("PROTOCOL"), |text| match text.to_ascii_lowercase().as_str() {
            "http/protobuf" => Ok(false),
            "grpc" => Ok(true),
            _ => Err("http/protobuf is sent instead, which collectors usually take at port 4318"),
        });
        let grpc = grpc.unwrap_or(false);
        let url = if grpc { setting.grpc_url(signal)? } else { setting.url(path)? };
        let tls = if url.starts_with("https:") { Some(self.tls_files(&setting, &names)?) } else { None };
        let gzip = self.first(&names("COMPRESSION"), |text| match text.to_ascii_lowercase().as_str() {
            "gzip" => Ok(true),
            "none" => Ok(false),
            _ => Err("expected gzip or none"),
        });
        let timeout = self.first(&names("TIMEOUT"), |text| {
            let millis = text.parse().ok().filter(|millis| *millis > 0);
            millis.map(Duration::from_millis).ok_or("expected milliseconds, at least 1")
        });
        let headers = names("HEADERS").iter().find_map(|name| Some(self.headers(name, self.get(name)?)));
        Ok(Some(Endpoint {
            url,
            headers: headers.unwrap_or_default(),
            timeout: timeout.unwrap_or(TIMEOUT),
            gzip: gzip.unwrap_or(false),
            grpc,
            tls,
        }))
    }

    /// The files for TLS, which can be used.
    fn tls_files(
        &self,
        setting: &EndpointSetting<'_>,
        names: &dyn Fn(&str) -> [String; 2],
    ) -> Result<TlsFiles, ConfigError> {
        let file = |what| names(what).iter().find_map(|name| self.get(name)).map(PathBuf::from);
        let client = match (file("CLIENT_CERTIFICATE"), file("CLIENT_KEY")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                let why =
                    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY go together";
                return Err(ConfigError::new(format!("{}: {why}; set both or none", setting.name)));
            }
        };
        let files = TlsFiles { ca: file("CERTIFICATE"), client };
        match files.client_config(b"") {
            Ok(_) => Ok(files),
            Err(error) => Err(ConfigError::new(format!("{}: can't use https: {error}", setting.name))),
        }
    }

    /// Whether the list of a signal's exporters has `otlp`. A list without a known name is ignored.
    fn exports_by_otlp(&self, signal: &str) -> bool {
        let name = format!("OTEL_{signal}_EXPORTER");
        let Some(list) = self.get(&name) else { return true };
        let (mut otlp, mut others) = (false, false);
        for exporter in list.split(',').map(str::trim).filter(|exporter| !exporter.is_empty()) {
            match exporter.to_ascii_lowercase().as_str() {
                "otlp" => otlp = true,
                // Prometheus can scrape /metrics in any case.
                "prometheus" if signal == "METRICS" => others = true,
                "none" => others = true,
                "console" | "logging" | "zipkin" | "jaeger" | "prometheus" => {
                    others = true;
                    self.ignore(&name, exporter, "only otlp is supported");
                }
                _ => self.ignore(&name, exporter, "expected otlp or none"),
            }
        }
        otlp || !others
    }

    /// The endpoint that is set for a signal, if any.
    pub(super) fn endpoint_setting(
        &self,
        signal: &str,
        config: &'a Telemetry,
    ) -> Option<EndpointSetting<'a>> {
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

    pub(super) fn sampler(&self) -> Sampler {
        const EXPECTED: &str =
            "expected always_on, always_off or traceidratio, or one of them after parentbased_";
        let sampler = self.first(&["OTEL_TRACES_SAMPLER".to_owned()], |name| {
            let name = name.to_ascii_lowercase();
            let root = name.strip_prefix("parentbased_");
            let sampler = match root.unwrap_or(&name) {
                "always_on" => Sampler::AlwaysOn,
                "always_off" => Sampler::AlwaysOff,
                "traceidratio" => Sampler::TraceIdRatioBased(self.sampler_ratio()),
                _ => return Err(EXPECTED),
            };
            Ok(if root.is_some() { Sampler::ParentBased(Box::new(sampler)) } else { sampler })
        });
        sampler.unwrap_or_else(|| Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
    }

    fn sampler_ratio(&self) -> f64 {
        let is_ratio = |ratio: &f64| (0.0..=1.0).contains(ratio);
        self.number("OTEL_TRACES_SAMPLER_ARG", is_ratio, "expected a number from 0 to 1").unwrap_or(1.0)
    }

    pub(super) fn temporality(&self) -> Temporality {
        let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE".to_owned();
        let temporality = self.first(&[name], |text| match text.to_ascii_lowercase().as_str() {
            "cumulative" => Ok(Temporality::Cumulative),
            "delta" => Ok(Temporality::Delta),
            "lowmemory" => Ok(Temporality::LowMemory),
            _ => Err("expected cumulative, delta or lowmemory"),
        });
        temporality.unwrap_or(Temporality::Cumulative)
    }

    /// Whether trace context and baggage are propagated. A list without a known name is ignored.
    pub(super) fn propagators(&self) -> (bool, bool) {
        let name = "OTEL_PROPAGATORS";
        let (mut trace_context, mut baggage, mut none) = (false, false, false);
        for propagator in self.get(name).unwrap_or_default().split(',').map(str::trim) {
            match propagator.to_ascii_lowercase().as_str() {
                "" => {}
                "tracecontext" => trace_context = true,
                "baggage" => baggage = true,
                "none" => none = true,
                _ => self.ignore(name, propagator, "expected tracecontext, baggage or none"),
            }
        }
        if trace_context || baggage || none { (trace_context, baggage) } else { (true, true) }
    }

    /// Warnings don't show the values, which are usually tokens.
    fn headers(&self, name: &str, text: &str) -> HashMap<String, String> {
        let mut headers = HashMap::new();
        for entry in entries(text) {
            match pair(entry) {
                Some((key, value))
                    if key.parse::<http::HeaderName>().is_ok()
                        && value.parse::<http::HeaderValue>().is_ok() =>
                {
                    headers.insert(key, value);
                }
                _ => {
                    self.warn(format!("{name}: an invalid header is ignored: expected name=value,name=value"))
                }
            }
        }
        headers
    }

    /// The attributes of the resource. If one is invalid all are ignored, as the specification has it.
    pub(super) fn resource_attributes(&self) -> HashMap<String, String> {
        let attributes = self.first(&["OTEL_RESOURCE_ATTRIBUTES".to_owned()], |text| {
            entries(text).map(pair).collect::<Option<_>>().ok_or("expected key=value,key=value")
        });
        attributes.unwrap_or_default()
    }
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|entry| !entry.trim().is_empty())
}

/// `key=value`, each percent-encoded.
fn pair(entry: &str) -> Option<(String, String)> {
    let decoded = |text: &str| Some(percent_decode_str(text.trim()).decode_utf8().ok()?.into_owned());
    let (key, value) = entry.split_once('=')?;
    Some((decoded(key)?, decoded(value)?)).filter(|(key, _)| !key.is_empty())
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
        self.parse(&url, 4318).map(|_| url)
    }

    /// Over gRPC, only scheme, host and port count.
    fn grpc_url(&self, signal: &str) -> Result<String, ConfigError> {
        let url = self.parse(self.text, 4317)?;
        Ok(url.origin().ascii_serialization() + grpc::path(signal))
    }

    fn parse(&self, url: &str, port: u16) -> Result<reqwest::Url, ConfigError> {
        match reqwest::Url::parse(url) {
            Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => Ok(parsed),
            _ => {
                let why = format!("not a valid URL; expected http://host:{port} or https://host:{port}");
                Err(ConfigError::new(format!("{}: {:?}: {why}", self.name, self.text)))
            }
        }
    }
}
