//! The service instance that a span belongs to. `hub up` runs several services in one process with one tracer. So the
//! [`ServiceInstance`] travels in OpenTelemetry's context from a request's first span to all spans below it, is
//! recorded on each span when it starts, and selects the resource when the span is exported.

use std::sync::Arc;

use opentelemetry::trace::Span as _;
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{Span, SpanData};
use parking_lot::Mutex;

/// The attribute that records the instance from a span's start to its export. It is never exported.
const ATTRIBUTE: &str = "hub.source";

/// One instance of one service in this process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceInstance {
    /// The service's name.
    pub service: Arc<str>,
    /// The instance's `Id`.
    pub id: Arc<str>,
}

/// A new instance id: the service's name and 64 random bits. Log entries are identified by instance and number, so
/// two instances must never share an id. (Of 10,000 ids with 32 bits, two are the same with a probability of 1 %.)
pub fn new_instance_id(service: &str) -> String {
    format!("{service}-{:016x}", rand::random::<u64>())
}

/// A new id for one run of an instance whose data outlasts it: that of the data and 24 random bits.
pub fn new_run_id(lasting: &str) -> String {
    format!("{lasting}.{:06x}", rand::random::<u32>() >> 8)
}

impl ServiceInstance {
    /// The instance `id` of `service`.
    pub fn new(service: &str, id: &str) -> Self {
        Self { service: service.into(), id: id.into() }
    }

    /// `context` with this instance, for spans that start in it.
    pub(crate) fn in_context(&self, context: &Context) -> Context {
        context.with_value(self.clone())
    }

    /// While the guard lives, root spans that start on this thread belong to this instance. Don't hold it over an
    /// await.
    #[must_use = "the instance is left when the guard is dropped"]
    pub fn enter(&self) -> impl Sized + use<> {
        self.in_context(&Context::current()).attach()
    }

    /// Records the instance in `context` on a span that starts there.
    pub(super) fn record(span: &mut Span, context: &Context) {
        if let Some(instance) = context.get::<Self>() {
            let parts = [instance.service.clone(), instance.id.clone()].map(StringValue::from);
            span.set_attribute(KeyValue::new(ATTRIBUTE, Value::Array(Array::String(parts.to_vec()))));
        }
    }

    /// Removes the record from a span that ended.
    pub(super) fn take(span: &mut SpanData) -> Option<Self> {
        let at = span.attributes.iter().position(|attribute| attribute.key.as_str() == ATTRIBUTE)?;
        match span.attributes.swap_remove(at).value {
            Value::Array(Array::String(parts)) => match parts.as_slice() {
                [service, id] => Some(Self::new(service.as_str(), id.as_str())),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The instances that were bound in this process.
#[derive(Debug, Default)]
pub(super) struct BoundInstances(Mutex<Vec<ServiceInstance>>);

impl BoundInstances {
    pub(super) fn add(&self, instance: ServiceInstance) {
        self.0.lock().push(instance);
    }

    /// The instance, if there is exactly one.
    pub(super) fn single(&self) -> Option<ServiceInstance> {
        match self.0.lock().as_slice() {
            [single] => Some(single.clone()),
            _ => None,
        }
    }
}
