//! The format of lines on stderr: for people on a terminal, JSON otherwise. A JSON line that belongs to a trace
//! contains its id, so that lines, log entries and traces can be matched, and an error is shown with its causes.

use std::error::Error;
use std::fmt::{self, Debug};
use std::io::IsTerminal;

use hubspoke_client::with_causes;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use super::stderr::StderrQueue;

/// The layer that writes lines to `queue`.
pub(super) fn layer(queue: StderrQueue) -> Box<dyn Layer<Registry> + Send + Sync> {
    let lines = tracing_subscriber::fmt::layer().with_writer(move || queue.clone());
    if std::io::stderr().is_terminal() {
        lines.with_target(false).compact().boxed()
    } else {
        let json = tracing_subscriber::fmt::format().json().flatten_event(true);
        lines.fmt_fields(JsonFields::new()).event_format(CompleteJson(json)).boxed()
    }
}

/// tracing's JSON with the two things that it leaves out.
struct CompleteJson(Format<Json>);

impl<S, N> FormatEvent<S, N> for CompleteJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let trace = Context::map_current(|context| {
            context.has_active_span().then(|| context.span().span_context().trace_id())
        });
        let mut errors = ErrorFields(Vec::new());
        event.record(&mut errors);
        if trace.is_none() && errors.0.is_empty() {
            return self.0.format_event(ctx, out, event);
        }
        let mut line = String::new();
        self.0.format_event(ctx, Writer::new(&mut line), event)?;
        for (alone, complete) in errors.0 {
            line = line.replacen(&alone, &complete, 1);
        }
        match (trace, line.strip_prefix('{')) {
            (Some(trace), Some(rest)) => write!(out, r#"{{"trace_id":"{trace}",{rest}"#),
            _ => out.write_str(&line),
        }
    }
}

/// The errors of an event that have causes, as JSON members: as tracing writes them, and with their causes.
struct ErrorFields(Vec<(String, String)>);

impl Visit for ErrorFields {
    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}

    fn record_error(&mut self, field: &Field, error: &(dyn Error + 'static)) {
        if error.source().is_some() {
            let member = |text: String| format!(r#""{}":{}"#, field.name(), Value::from(text));
            self.0.push((member(error.to_string()), member(with_causes(error))));
        }
    }
}
