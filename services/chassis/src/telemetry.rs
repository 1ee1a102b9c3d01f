//! Logs, traces and metrics of a process: lines on stderr, and OTLP to a collector if `telemetry.otlp_endpoint` or one
//! of the standard `OTEL_…` variables names one.
//!
//! Without an endpoint there is no exporter and spans cost nothing, because nobody collects them. With one, no request
//! waits for it: items that do not fit into a bounded queue are lost and counted. Shutdown is bounded whatever the
//! collector does. The trace context of a request is passed on in either case.
//!
//! Each service has its own meter provider ([`crate::metrics`]). A process has one tracer and one logger; the
//! [`ServiceInstance`] in a span's context says which service the span belongs to. Deliberately absent: OTLP over gRPC,
//! as JSON, and over TLS.

pub use self::instance::{ServiceInstance, new_instance_id, new_run_id};
pub(crate) use self::pipeline::{
    SCOPE, add_instance, add_meter_provider, exports_traces, metrics_reader, resource,
};
pub use self::settings::TelemetrySettings;
pub use self::start::{Running, StartError, start};

mod counting;
mod export_client;
mod export_connector;
mod export_tls;
mod exporters;
mod format;
mod grpc;
mod instance;
mod losses;
mod otel_env;
mod pipeline;
mod propagation;
mod sampler;
mod settings;
mod start;
mod stderr;
