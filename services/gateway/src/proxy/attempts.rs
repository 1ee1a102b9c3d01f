//! The attempts of one request: at which instance, how many, and what follows a failure.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use http::header::HOST;
use hubspoke_client::trace;
use hubspoke_http1::header_map;
use tracing::{Instrument, Span};

use super::active::{ActiveRequest, SLOW_CLIENT};
use super::attempt;
use super::attempt_context::{AttemptContext, AttemptFailure};
use super::response_body::Relay;
use super::waiting::{self, Waiting};
use crate::error::{Cause, RequestFailure};
use crate::headers::{self, X_FORWARDED_PREFIX};
use crate::replay::ReplayState;
use crate::retry::{self, Reached};
use crate::upstream::{Instance, UpstreamService};

/// A request that is ready to be sent to an instance of its service.
pub(super) struct RoutedRequest {
    pub(super) service: Arc<UpstreamService>,
    /// The key for sticky routing.
    pub(super) key: Option<Vec<u8>>,
    pub(super) context: AttemptContext,
}

/// Sends the request until an instance responds or no further attempt is allowed.
pub(super) async fn run(
    routed: &mut RoutedRequest,
    active: &mut ActiveRequest,
) -> Result<Box<Relay>, RequestFailure> {
    let RoutedRequest { service, key, context } = routed;
    let mut tried: Vec<Arc<Instance>> = Vec::new();
    let mut last_resort: Option<Arc<Instance>> = None;
    let mut last: Option<Box<RequestFailure>> = None;
    let mut progress = Progress::default();
    loop {
        // The first attempt follows immediately, so the clock need not be read again.
        let now = if progress.has_paused || active.attempts() > 0 { Instant::now() } else { active.began() };
        let eject = &context.client.gateway.config.eject;
        let picked = match progress.must_wait {
            true => None,
            false => service.pick(&tried, key.as_deref(), now, eject, &mut rand::rng()),
        };
        let last_resort_now = || last_resort.take().filter(|_| !progress.must_wait);
        let Some(instance) = picked.or_else(last_resort_now) else {
            // Boxed: most requests don't need its memory.
            if Box::pin(progress.pause(context, service, active)).await {
                // An instance that refused a connection may be there by now; one that may have seen the request does
                // not get it again.
                if !progress.may_be_seen {
                    tried.clear();
                }
                continue;
            }
            if active.body().is_some_and(ReplayState::is_cut_off) {
                return Err(RequestFailure::new(Cause::BadBody).for_service(&service.name));
            }
            let none = || RequestFailure::new(Cause::NoInstance).for_service(&service.name);
            return Err(last.map_or_else(none, |last| *last));
        };
        active.attempt(&instance, now);
        let span = span(context, &instance, active);
        // An upgrade is passed on in HTTP/1 alone; otherwise the offer is ignored.
        let upgrades = context.request.options.upgrade.is_some() && !instance.speaks_h2();
        let result = match upgrades {
            true => {
                let upgrade = Box::pin(attempt::upgrade(context, &instance, now, active));
                upgrade.instrument(span.clone()).await
            }
            false => attempt::run(context, &instance, now, active).instrument(span.clone()).await,
        };
        let outcome = result.as_ref().map(|response| response.head.status().as_u16());
        trace::record_outcome(&span, outcome.map_err(|failed| failed.cause.name()));
        let failed = match result {
            Ok(mut response) => {
                if context.is_stripped {
                    restore_prefix(&service.name, &context.request.headers, response.head.headers_mut());
                }
                // The head ends an ejection; only a complete response clears the record.
                if instance.is_ejected() {
                    instance.succeeded(now);
                }
                if let Some(body) = active.body() {
                    body.end_replay();
                }
                header_map::recycle(std::mem::take(&mut context.request.headers));
                return Ok(response);
            }
            Err(failed) => failed,
        };
        let mut failure = RequestFailure::new(failed.cause).for_service(&service.name);
        failure.attempts = active.attempts();
        if let Some(fault) = active.body().and_then(ReplayState::fault) {
            failure.cause = fault; // the client's, not the instance's
            return Err(failure);
        }
        let gateway = &context.client.gateway;
        if !failed.stale && !may_be_the_clients(&failed, active) {
            gateway.instance_failed(service, &instance);
        }
        progress.may_be_seen |= failed.reached != Reached::Nothing;
        let may_resend = may_resend(context, &failed, active);
        let may_retry = may_resend
            && active.attempts() - progress.forgiven <= context.settings.attempts
            && (failed.stale || service.may_retry(Instant::now(), &gateway.config.retry));
        (progress.must_wait, progress.is_broken) = (!may_retry, !failed.nobody_is_there());
        if !(may_retry || may_resend && failed.nobody_is_there()) {
            return Err(failure);
        }
        service.stats().retries.count();
        tracing::debug!(
            service = %service.name,
            instance = %instance.id,
            cause = failed.cause.name(),
            stale = failed.stale,
            "retrying on another instance"
        );
        // An instance that has only closed an idle connection, or whose accept queue is full, gets the request again if
        // there is no other.
        let queue_full = failed.cause == Cause::ConnectTimeout;
        if failed.stale || queue_full {
            last_resort = Some(instance.clone());
        }
        // If one idle connection was stale, others may be.
        (context.is_retry, context.new_connection) = (true, failed.stale);
        tried.push(instance);
        last = Some(Box::new(failure));
        // Instances may have been registered or removed in the meantime.
        waiting::refresh(context, service);
    }
}

/// How far a request has come in all of its attempts.
#[derive(Default)]
struct Progress {
    waiting: Option<Waiting>,
    /// Nothing is left to be tried without a pause.
    must_wait: bool,
    has_paused: bool,
    /// The last attempt failed at an instance that was there.
    is_broken: bool,
    /// An instance may have seen the request.
    may_be_seen: bool,
    /// Attempts before the last pause: nobody was there, so they don't count towards the limit.
    forgiven: u32,
}

impl Progress {
    /// Waits until there are other instances, or for a moment. False if the request may not wait, or no longer.
    async fn pause(
        &mut self,
        context: &AttemptContext,
        service: &mut Arc<UpstreamService>,
        active: &mut ActiveRequest,
    ) -> bool {
        if self.is_broken && !service.is_empty() {
            return false;
        }
        if self.waiting.is_none() {
            self.waiting = Waiting::begin(context, service, active, Instant::now());
        }
        let Some(waiting) = &self.waiting else { return false };
        let began = Instant::now();
        let goes_on = waiting.next(context, service, active.body()).await;
        active.waited(began.elapsed(), !self.has_paused);
        (self.has_paused, self.must_wait) = (true, false);
        if !self.may_be_seen {
            self.forgiven = active.attempts();
        }
        goes_on
    }
}

/// Puts `/NAME`, which was removed from the path of a request, in front of the paths in its response.
fn restore_prefix(service: &str, request: &HeaderMap, response: &mut HeaderMap) {
    let prefix = format!("/{service}");
    let reported = request.get(X_FORWARDED_PREFIX).map_or(prefix.as_bytes(), |value| value.as_bytes());
    headers::prefix::restore(response, &prefix, reported, request.get(HOST));
}

/// The span of an attempt, which the request then names as its parent; disabled if the request's own span is.
fn span(context: &mut AttemptContext, instance: &Instance, active: &ActiveRequest) -> Span {
    if active.span().is_disabled() {
        return Span::none();
    }
    let request = &mut context.request;
    let span = trace::Attempt {
        operation: None,
        method: request.method.as_str(),
        path: request.path.path(),
        service: &instance.service,
        instance: &instance.id,
        addr: &instance.addr,
        resend: active.attempts().saturating_sub(1) as usize,
    }
    .span();
    span.in_scope(|| trace::inject(&mut request.headers));
    span
}

/// Whether the client may have brought the failure about: by what its request is, or by sending its body too slowly for
/// the instance. An instance that is broken fails for other requests as well.
fn may_be_the_clients(failed: &AttemptFailure, active: &ActiveRequest) -> bool {
    let was_kept_waiting = || active.body().is_some_and(|body| body.waited() >= SLOW_CLIENT);
    failed.request_at_fault || failed.reached != Reached::Nothing && was_kept_waiting()
}

fn may_resend(context: &AttemptContext, failed: &AttemptFailure, active: &ActiveRequest) -> bool {
    let replayable = active.body().is_none_or(ReplayState::is_replayable);
    Instant::now() < context.deadline && retry::may_retry(failed.reached, &context.request.method, replayable)
}
