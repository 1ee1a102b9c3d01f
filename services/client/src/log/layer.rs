//! The program's own `tracing` events as log entries.

use std::error::Error;
use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::queue::{LogEntry, Pusher};
use crate::causes::with_causes;

/// Crates that take part in sending: an entry must not cause further entries.
const SENDING_CRATES: [&str; 5] = ["hyper", "h2", "reqwest", "tower", "opentelemetry"];

/// Adds every event to a [`LogQueue`](super::LogQueue): the message as text, the level, all other fields and the target.
/// Combine it with a filter to choose events. Events of the HTTP stack that sends the entries are ignored. An event that
/// does not fit into the queue is lost and counted there.
///
/// ```
/// use hubspoke_client::log::{LogLayer, LogQueue};
/// use tracing_subscriber::layer::SubscriberExt as _;
/// # use hubspoke_client::{Directory, LogClient};
/// # use hubspoke_protocol::{ServiceInfo, ServiceLists};
/// # use hubspoke_testkit::FakeLog;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let log = FakeLog::start().await;
/// # let directory = Directory::from(ServiceLists([("log".to_owned(), vec![log.info()])].into()));
/// # let client = LogClient::new(directory, &ServiceInfo::new("greeter", "10.0.0.7:8080"))?;
/// let queue = LogQueue::start(client, 1 << 20);
/// let subscriber = tracing_subscriber::registry().with(LogLayer::new(queue.pusher()));
/// tracing::subscriber::with_default(subscriber, || tracing::warn!(user = 7, "no greeting for this user"));
/// # assert_eq!(queue.flush(hubspoke_testkit::DEADLINE).await, 0);
/// # assert_eq!(log.texts(), ["no greeting for this user"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LogLayer {
    queue: Pusher,
}

impl LogLayer {
    /// A layer that adds to the queue of `queue`.
    pub fn new(queue: Pusher) -> Self {
        Self { queue }
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        let crate_name = target.split(':').next().unwrap_or(target);
        if target.starts_with("hubspoke_client::log")
            || SENDING_CRATES.iter().any(|name| crate_name.starts_with(name))
        {
            return;
        }
        let mut fields = EventFields::default();
        event.record(&mut fields);
        fields.others.insert("target".to_owned(), target.into());
        let text =
            if fields.message.is_empty() { event.metadata().name().to_owned() } else { fields.message };
        let entry = LogEntry {
            text,
            level: Some(name(*event.metadata().level())),
            fields: fields.others,
            ..LogEntry::default()
        };
        let _ = self.queue.push(entry); // counted there if it is full
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
struct EventFields {
    message: String,
    others: Map<String, Value>,
}

impl EventFields {
    fn set(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => drop(self.others.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for EventFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.set(field, with_causes(value).into());
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
