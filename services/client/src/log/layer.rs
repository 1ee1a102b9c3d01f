//! A service's own `tracing` events as entries of the log service.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::queue::{Entry, Pusher};

/// Crates that take part in sending: an entry must not make more entries.
const OWN: [&str; 5] = ["hyper", "h2", "reqwest", "tower", "opentelemetry"];

/// Puts every event into a [`super::LogQueue`]: the message as text, the level, the other fields and the target.
/// Add a filter of your own to choose. Events of the HTTP stack that sends are left out, and what does not fit into
/// the queue is lost and counted there.
#[derive(Debug)]
pub struct LogLayer {
    queue: Pusher,
}

impl LogLayer {
    /// A layer that adds to a queue: `LogLayer::new(queue.pusher())`.
    pub fn new(queue: Pusher) -> Self {
        Self { queue }
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        let crate_name = target.split(':').next().unwrap_or(target);
        if target.starts_with("hubspoke_client::log") || OWN.iter().any(|name| crate_name.starts_with(name)) {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields.others.insert("target".to_owned(), target.into());
        let text =
            if fields.message.is_empty() { event.metadata().name().to_owned() } else { fields.message };
        let entry = Entry { text, level: Some(name(*event.metadata().level())), fields: fields.others };
        // Counted there.
        let _ = self.queue.push(entry);
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warn",
        Level::ERROR => "error",
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => drop(self.others.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }
}
