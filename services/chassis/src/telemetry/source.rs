//! Which service of this process a span belongs to. `hub up` runs several services in one process, which has one
//! tracer; so the [`Source`] rides in OpenTelemetry's context from a request's first span to all below it, is noted
//! on each span as it starts, and chooses the resource when it is exported.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::trace::Span as _;
use opentelemetry::{Array, Context, ContextGuard, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{Span, SpanData};

/// The attribute that carries a source from a span's start to its export; never exported itself.
const KEY: &str = "hub.source";

/// One instance of one service in this process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// The service's name.
    pub service: Arc<str>,
    /// The instance's id.
    pub instance: Arc<str>,
}

/// A new instance id: the service's name and 64 random bits. Readers tell entries apart by instance and number, so two
/// instances must never share an id. (Of 10,000 ids with 32 bits, two are the same with a probability of 1 %.)
pub(crate) fn instance_id(service: &str) -> String {
    format!("{service}-{:016x}", rand::random::<u64>())
}

impl Source {
    /// The instance of a service.
    pub fn new(service: &str, instance: &str) -> Self {
        Self { service: service.into(), instance: instance.into() }
    }

    /// `context` with this source: for spans that begin in it.
    pub(crate) fn within(&self, context: &Context) -> Context {
        context.with_value(self.clone())
    }

    /// While the guard lives, root spans that begin on this thread are this service's. Not to be held over an await.
    pub fn enter(&self) -> ContextGuard {
        self.within(&Context::current()).attach()
    }

    /// Notes the source of a span that starts in `context`.
    pub(super) fn note(span: &mut Span, context: &Context) {
        if let Some(source) = context.get::<Self>() {
            let parts = [source.service.clone(), source.instance.clone()].map(StringValue::from);
            span.set_attribute(KeyValue::new(KEY, Value::Array(Array::String(parts.to_vec()))));
        }
    }

    /// Takes the note off again.
    pub(super) fn taken_from(span: &mut SpanData) -> Option<Self> {
        let at = span.attributes.iter().position(|attribute| attribute.key.as_str() == KEY)?;
        match span.attributes.swap_remove(at).value {
            Value::Array(Array::String(parts)) => match parts.as_slice() {
                [service, instance] => Some(Self::new(service.as_str(), instance.as_str())),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The services that were bound in this process.
#[derive(Debug, Default)]
pub(super) struct Sources(Mutex<Vec<Source>>);

impl Sources {
    pub(super) fn add(&self, source: Source) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(source);
    }

    /// The one service that this process is, where it is one.
    pub(super) fn only(&self) -> Option<Source> {
        let sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match sources.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_id_is_the_name_and_16_digits() {
        let id = instance_id("greeter");
        let digits = id.strip_prefix("greeter-").unwrap();
        assert!(digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{id}");
        assert_ne!(id, instance_id("greeter"));
    }
}
