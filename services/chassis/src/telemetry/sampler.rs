//! Which traces are recorded: requests as `OTEL_TRACES_SAMPLER` asks; heartbeats, pushes and renewals only now and
//! then. Those are many and alike, so that traced in full they would drown what people look for; one that fails is
//! said in the log either way.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

/// Names of the spans with which the registry and its members begin traces on their own.
const HOUSEKEEPING: [&str; 6] =
    ["heartbeat", "push", "GET /heart-beat", "POST /services", "PUT /services", "DELETE /services"];

#[derive(Debug, Clone)]
pub(super) struct Sampling {
    requests: Sampler,
    housekeeping: Sampler,
}

impl Sampling {
    /// `share` of the housekeeping is traced, of what `requests` would trace.
    pub(super) fn new(requests: Sampler, share: f64) -> Self {
        Self { requests, housekeeping: Sampler::TraceIdRatioBased(share) }
    }
}

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let decided = self.requests.should_sample(parent, trace_id, name, kind, attributes, links);
        let begins = parent.is_none_or(|parent| !parent.span().span_context().is_valid());
        if begins && HOUSEKEEPING.contains(&name) && decided.decision == SamplingDecision::RecordAndSample {
            return self.housekeeping.should_sample(parent, trace_id, name, kind, attributes, links);
        }
        decided
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};

    use super::*;

    fn traced(sampling: &Sampling, parent: Option<bool>, name: &str, trace_id: u128) -> bool {
        let trace_id = TraceId::from(trace_id);
        let parent = parent.map(|sampled| {
            let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
            let parent = SpanContext::new(trace_id, SpanId::from(1u64), flags, true, TraceState::default());
            Context::new().with_remote_span_context(parent)
        });
        let result = sampling.should_sample(parent.as_ref(), trace_id, name, &SpanKind::Server, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn heartbeats_are_traced_now_and_then_and_requests_as_asked() {
        let all = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
        let sampling = Sampling::new(all.clone(), 0.01);
        let ids = || (0..10_000u128).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        assert!(ids().all(|id| traced(&sampling, None, "GET /visit", id)));
        for name in super::HOUSEKEEPING {
            let traced = ids().filter(|&id| traced(&sampling, None, name, id)).count();
            assert!((50..200).contains(&traced), "{name}: {traced} of 10,000");
        }
        // Where the registry traces a heartbeat, so does the member; and the other way round.
        assert!(ids().all(|id| traced(&sampling, Some(true), "GET /heart-beat", id)));
        assert!(!ids().any(|id| traced(&sampling, Some(false), "GET /heart-beat", id)));
        let off = Sampling::new(Sampler::AlwaysOff, 1.0);
        assert!(!ids().any(|id| traced(&off, None, "heartbeat", id)));
        let every = Sampling::new(all, 1.0);
        assert!(ids().all(|id| traced(&every, None, "heartbeat", id)));
    }
}
