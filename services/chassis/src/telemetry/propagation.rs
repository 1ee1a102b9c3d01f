use std::sync::Once;

use opentelemetry::global;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};

static SET: Once = Once::new();

/// Sets the process's propagator, unless one was set before.
pub(super) fn set_propagator(trace_context: bool, baggage: bool) {
    SET.call_once(|| {
        let mut all: Vec<Box<dyn TextMapPropagator + Send + Sync>> = Vec::new();
        if trace_context {
            all.push(Box::new(TraceContextPropagator::new()));
        }
        if baggage {
            all.push(Box::new(BaggagePropagator::new()));
        }
        global::set_text_map_propagator(TextMapCompositePropagator::new(all));
    });
}
