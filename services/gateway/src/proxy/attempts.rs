//! The attempts of one request: which instance, how often, and what is done about those that failed.

use std::sync::Arc;
use std::time::Instant;

use hubspoke_client::trace;
use tracing::{Instrument, Span};

use super::attempt::{Exchange, Failed, Stage};
use super::record::Record;
use super::{attempt, upload};
use crate::error::{Cause, Failure};
use crate::http1::fields;
use crate::retry;
use crate::upstream::{Instance, Service};

/// A request that is ready to go to an instance of its service.
pub(super) struct Errand {
    pub(super) service: Arc<Service>,
    /// What keeps its client with one instance.
    pub(super) key: Option<Vec<u8>>,
    /// Whether the instance may switch to another protocol.
    pub(super) may_switch: bool,
    pub(super) stage: Stage,
}

/// Tries until an instance replies, or nothing more may be tried.
pub(super) async fn run(errand: &mut Errand, record: &mut Record) -> Result<Box<Exchange>, Failure> {
    let Errand { service, key, may_switch, stage } = errand;
    let mut tried: Vec<Arc<Instance>> = Vec::new();
    let mut again: Option<Arc<Instance>> = None;
    let mut last: Option<Box<Failure>> = None;
    loop {
        // The first follows its request at once, and clocks cost.
        let now = if record.attempts == 0 { record.began() } else { Instant::now() };
        let eject = &stage.client.gateway.config.eject;
        let picked = service.pick(&tried, key.as_deref(), now, eject, &mut rand::rng());
        let Some(instance) = picked.or_else(|| again.take()) else {
            let none = || Failure::new(Cause::NoInstance).of(&service.name);
            return Err(last.map_or_else(none, |last| *last));
        };
        record.attempts += 1;
        record.upstream = Some(instance.begin());
        record.attempted = now;
        let span = span(stage, &instance, record);
        let result = match *may_switch {
            true => {
                let upgrade = Box::pin(attempt::upgrade(stage, &instance, now, record));
                upgrade.instrument(span.clone()).await
            }
            false => attempt::run(stage, &instance, now, record).instrument(span.clone()).await,
        };
        let outcome = result.as_ref().map(|exchange| exchange.response.status().as_u16());
        trace::attempted(&span, outcome.map_err(|failed| failed.cause.name()));
        let failed = match result {
            Ok(exchange) => {
                // It answers again. Whether it does so to the end is seen when the reply is over.
                if instance.is_ejected() {
                    instance.succeeded(now);
                }
                if let Some(upload) = &record.upload {
                    upload.forget();
                }
                fields::put(std::mem::take(&mut stage.outgoing.headers));
                return Ok(exchange);
            }
            Err(failed) => failed,
        };
        let mut failure = Failure::new(failed.cause).of(&service.name);
        failure.attempts = record.attempts;
        if let Some(fault) = record.upload.as_ref().and_then(upload::Shared::fault) {
            failure.cause = fault; // the client's, not the instance's
            return Err(failure);
        }
        let gateway = &stage.client.gateway;
        if !failed.stale {
            gateway.instance_failed(service, &instance);
        }
        let may = may_go_on(stage, &failed, record)
            && (failed.stale || service.may_retry(Instant::now(), &gateway.config.retry));
        if !may {
            return Err(failure);
        }
        service.stats().count_retry();
        tracing::debug!(
            service = %service.name,
            instance = %instance.id,
            cause = failed.cause.name(),
            stale = failed.stale,
            "attempt failed, trying another instance"
        );
        // An instance that has only closed an idle connection, or whose accept queue is full, has not failed: where
        // it is all there is, it is asked again.
        let queue_full = failed.cause == Cause::ConnectTimeout;
        if failed.stale || queue_full {
            again = Some(instance.clone());
        }
        // Where one idle connection was stale, others may be.
        (stage.is_retry, stage.fresh) = (true, failed.stale);
        tried.push(instance);
        last = Some(Box::new(failure));
        // What has registered or left meanwhile counts.
        if let Some(now) = gateway.table.load().service(&service.name) {
            *service = now.clone();
        }
    }
}

/// The span around an attempt, none where nobody listens; the instance then gets it as its parent.
fn span(stage: &mut Stage, instance: &Instance, record: &Record) -> Span {
    if record.span.is_disabled() {
        return Span::none();
    }
    let outgoing = &mut stage.outgoing;
    let span = trace::Attempt {
        operation: None,
        method: outgoing.method.as_str(),
        path: outgoing.path.path(),
        service: &instance.service,
        instance: &instance.id,
        addr: &instance.addr,
        resend: record.attempts.saturating_sub(1) as usize,
    }
    .span();
    span.in_scope(|| trace::inject(&mut outgoing.headers));
    span
}

fn may_go_on(stage: &Stage, failed: &Failed, record: &Record) -> bool {
    let replayable = record.upload.as_ref().is_none_or(upload::Shared::is_replayable);
    record.attempts <= stage.settings.attempts
        && Instant::now() < stage.deadline
        && retry::may_retry(failed.reached, &stage.outgoing.method, replayable)
}
