//! The attempts of one request: which instance, how often, and what is done about those that failed.

use std::sync::Arc;
use std::time::Instant;

use hub_client::trace;
use tracing::{Instrument, Span};

use super::attempt::{Exchange, Failed, Outgoing, Stage};
use super::record::Record;
use super::{attempt, tunnel};
use crate::error::{Cause, Failure};
use crate::retry;
use crate::server::peer::Peer;
use crate::upstream::{Instance, Service};

/// Tries until an instance replies, or nothing more may be tried.
pub(super) async fn run(
    peer: &Arc<Peer>,
    mut service: Arc<Service>,
    outgoing: Outgoing,
    key: Option<Vec<u8>>,
    may_switch: bool,
    record: &mut Record,
) -> Result<Box<Exchange>, Failure> {
    let gateway = &peer.gateway;
    let settings = service.settings.clone();
    let method = outgoing.method.clone();
    let mut tried: Vec<Arc<Instance>> = Vec::new();
    let mut again: Option<Arc<Instance>> = None;
    let mut last: Option<Failure> = None;
    let mut stage = Stage {
        peer,
        settings: &settings,
        outgoing,
        is_retry: false,
        fresh: false,
        deadline: record.began() + settings.total,
    };
    loop {
        let now = Instant::now();
        let picked = service.pick(&tried, key.as_deref(), now, &gateway.config.eject, &mut rand::rng());
        let Some(instance) = picked.or_else(|| again.take()) else {
            let none = || Failure::new(Cause::NoInstance).of(&service.name);
            return Err(last.unwrap_or_else(none));
        };
        record.attempts += 1;
        record.upstream = Some(instance.begin());
        record.attempted = now;
        let span = span(&mut stage, &instance, record);
        let result = match may_switch {
            true => {
                let tunnel = Box::pin(tunnel::open(&mut stage, &instance, now, record));
                tunnel.instrument(span.clone()).await
            }
            false => attempt::run(&mut stage, &instance, now, record).instrument(span.clone()).await,
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
                return Ok(exchange);
            }
            Err(failed) => failed,
        };
        let mut failure = Failure::new(failed.cause).of(&service.name);
        failure.attempts = record.attempts;
        if let Some(fault) = record.upload.as_ref().and_then(super::Shared::fault) {
            failure.cause = fault; // the client's, not the instance's
            return Err(failure);
        }
        if !failed.stale {
            gateway.instance_failed(&service, &instance);
        }
        let may = may_go_on(&stage, &failed, &method, record)
            && (failed.stale || service.stats.may_retry(Instant::now(), &gateway.config.retry));
        if !may {
            return Err(failure);
        }
        service.stats.retried();
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
        last = Some(failure);
        // What has registered or left meanwhile counts.
        if let Some(now) = gateway.table.load().service(&service.name) {
            service = now.clone();
        }
    }
}

/// The span around an attempt, none where nobody listens; the instance then gets it as its parent.
fn span(stage: &mut Stage<'_>, instance: &Instance, record: &Record) -> Span {
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

fn may_go_on(stage: &Stage<'_>, failed: &Failed, method: &http::Method, record: &Record) -> bool {
    let replayable = record.upload.as_ref().is_none_or(super::Shared::is_replayable);
    record.attempts <= stage.settings.attempts
        && Instant::now() < stage.deadline
        && retry::may_retry(failed.reached, method, replayable)
}
