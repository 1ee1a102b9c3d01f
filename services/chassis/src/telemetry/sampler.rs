//! Samples requests as `OTEL_TRACES_SAMPLER` says, and only a small share of heartbeats, pushes and renewals: those are
//! many and alike, and would drown the traces that people look for. Their failures are logged in any case.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

/// Root spans of the traffic between the registry and its members.
const HOUSEKEEPING: [&str; 6] =
    ["heartbeat", "push", "GET /heart-beat", "POST /services", "PUT /services", "DELETE /services"];

#[derive(Debug, Clone)]
pub(super) struct HousekeepingSampler {
    requests: Sampler,
    housekeeping: Sampler,
}

impl HousekeepingSampler {
    /// Traces `share` of the housekeeping that `requests` would trace.
    pub(super) fn new(requests: Sampler, share: f64) -> Self {
        Self { requests, housekeeping: Sampler::TraceIdRatioBased(share) }
    }
}

impl ShouldSample for HousekeepingSampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let result = self.requests.should_sample(parent, trace_id, name, kind, attributes, links);
        let is_root = parent.is_none_or(|parent| !parent.span().span_context().is_valid());
        if is_root && HOUSEKEEPING.contains(&name) && result.decision == SamplingDecision::RecordAndSample {
            return self.housekeeping.should_sample(parent, trace_id, name, kind, attributes, links);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};

    use super::*;

    fn traced(sampler: &HousekeepingSampler, parent: Option<bool>, name: &str, trace_id: u128) -> bool {
        let trace_id = TraceId::from(trace_id);
        let parent = parent.map(|sampled| {
            let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
            let parent = SpanContext::new(trace_id, SpanId::from(1u64), flags, true, TraceState::default());
            Context::new().with_remote_span_context(parent)
        });
        let result = sampler.should_sample(parent.as_ref(), trace_id, name, &SpanKind::Server, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn a_share_of_heartbeats_is_traced_and_requests_as_configured() {
        let all = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
        let sampler = HousekeepingSampler::new(all.clone(), 0.01);
        let ids = || (0..10_000u128).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        assert!(ids().all(|id| traced(&sampler, None, "GET /visit", id)));
        for name in super::HOUSEKEEPING {
            let traced = ids().filter(|&id| traced(&sampler, None, name, id)).count();
            assert!((50..200).contains(&traced), "{name}: {traced} of 10,000");
        }
        // A heartbeat is traced by both the registry and the member, or by neither.
        assert!(ids().all(|id| traced(&sampler, Some(true), "GET /heart-beat", id)));
        assert!(!ids().any(|id| traced(&sampler, Some(false), "GET /heart-beat", id)));
        let off = HousekeepingSampler::new(Sampler::AlwaysOff, 1.0);
        assert!(!ids().any(|id| traced(&off, None, "heartbeat", id)));
        let every = HousekeepingSampler::new(all, 1.0);
        assert!(ids().all(|id| traced(&every, None, "heartbeat", id)));
    }
}
