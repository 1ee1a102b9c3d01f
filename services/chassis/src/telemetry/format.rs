//! The format of lines on stderr: for people on a terminal, JSON otherwise. A JSON line that belongs to a trace
//! contains its id, so that lines, log entries and traces can be matched.

use std::fmt;
use std::io::IsTerminal;

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
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
        lines.fmt_fields(JsonFields::new()).event_format(WithTraceId(json)).boxed()
    }
}

struct WithTraceId(Format<Json>);

impl<S, N> FormatEvent<S, N> for WithTraceId
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
        let Some(trace) = trace else { return self.0.format_event(ctx, out, event) };
        let mut line = String::new();
        self.0.format_event(ctx, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(rest) => write!(out, r#"{{"trace_id":"{trace}",{rest}"#),
            None => out.write_str(&line),
        }
    }
}
