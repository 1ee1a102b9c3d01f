//! What is known of one request, from its head to the last byte of its reply. Dropped with the reply's body, it counts
//! and, where the request is in the sample, writes its line of the access log.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hubspoke_chassis::trace;
use hubspoke_client::load::InFlight as LoadInFlight;
use tracing::Span;

use super::upload::Shared;
use crate::client_conn::ClientConn;
use crate::error::Cause;
use crate::upstream::h1::Conn;
use crate::upstream::{Admission, InFlightGuard, Instance, Service};

/// What the gateway serves, as spans are named by it.
const ROUTE: &str = "/{service}/{*path}";

/// How long a client may go on sending after it has been answered.
const EARLY_REPLY: Duration = Duration::from_secs(5);

/// One request.
pub(crate) struct Record {
    client: Arc<ClientConn>,
    began: Instant,
    _load: LoadInFlight,
    /// The service that was asked for, and its place there where there was one.
    pub(crate) service: Option<(Arc<Service>, Option<Admission>)>,
    pub(crate) upstream: Option<InFlightGuard>,
    pub(crate) upload: Option<Shared>,
    /// None where nobody listens.
    pub(crate) span: Span,
    /// 0 until there is a reply.
    pub(crate) status: u16,
    pub(crate) cause: Option<Cause>,
    pub(crate) attempts: u32,
    /// When the last attempt began.
    pub(crate) attempted: Instant,
    /// How long the last connection took to make, and when the reply's head came.
    pub(crate) connect: Duration,
    replied: Option<Instant>,
    bytes: u64,
    complete: bool,
    /// When the connection to the instance was free again, where that is known.
    ended: Option<Instant>,
    broke_off: Option<ReplyFailed>,
    /// For the access log; `None` where the request isn't in the sample.
    line: Option<Box<Line>>,
}

struct Line {
    method: http::Method,
    path: String,
    trace: String,
}

/// Why a reply broke off after it had begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReplyFailed {
    #[error("the instance broke off its reply")]
    Broken,
    #[error("the instance fell silent within its reply")]
    Silent,
}

impl Record {
    pub(crate) fn begin<B>(client: &Arc<ClientConn>, request: &http::Request<B>) -> Box<Self> {
        let gateway = &client.gateway;
        client.request_began();
        let line = gateway.is_sampled().then(|| {
            let trace = request.headers().get(crate::headers::TRACEPARENT);
            Box::new(Line {
                method: request.method().clone(),
                path: request.uri().path().to_owned(),
                trace: trace.and_then(|trace| trace.to_str().ok()).unwrap_or_default().to_owned(),
            })
        });
        let (source, uri) = (&gateway.source, request.uri());
        let span = trace::server_span(source, request.method(), uri, ROUTE, request.headers());
        let began = Instant::now();
        Box::new(Self {
            client: client.clone(),
            began,
            _load: gateway.load.start(),
            service: None,
            upstream: None,
            upload: None,
            span,
            status: 0,
            cause: None,
            attempts: 0,
            attempted: began,
            connect: Duration::ZERO,
            replied: None,
            bytes: 0,
            complete: false,
            ended: None,
            broke_off: None,
            line,
        })
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// The head that goes on to the instance: it has a trace, where the client's had none.
    pub(super) fn traced(&mut self, headers: &http::HeaderMap) {
        if let Some(line) = &mut self.line
            && let Some(trace) = headers.get(crate::headers::TRACEPARENT)
        {
            line.trace = trace.to_str().unwrap_or_default().to_owned();
        }
    }

    /// The reply's last byte came from the instance: its connection can carry the next request, as soon as the whole
    /// of this one is on it. An instance may answer before that; the client is then not cut off while it still sends.
    pub(super) fn give_back(&mut self, mut conn: Box<Conn>, worker: usize, pool_size: usize) {
        let Some(instance) = self.upstream.as_ref().map(InFlightGuard::instance).cloned() else { return };
        if self.upload.is_none() || conn.is_reusable() {
            let now = Instant::now();
            self.ended = Some(now);
            return keep(&instance, conn, now, worker, pool_size);
        }
        // Ends with the body, with the patience for it, or with the worker's event loop.
        tokio::spawn(async move {
            let idle = poll_fn(|cx| conn.poll_idle(cx));
            if tokio::time::timeout(EARLY_REPLY, idle).await == Ok(true) {
                keep(&instance, conn, Instant::now(), worker, pool_size);
            }
        });
    }

    /// The reply's head is here. The clock is only asked where somebody will read it.
    pub(super) fn replied(&mut self) {
        self.replied = self.line.as_ref().map(|_| Instant::now());
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    pub(super) fn complete(&mut self) {
        self.complete = true;
    }

    pub(super) fn broke_off(&mut self, why: ReplyFailed) {
        self.broke_off = Some(why);
        if self.upload.as_ref().is_some_and(|upload| upload.fault().is_some()) {
            return; // the client broke off its request, and with it went the connection to the instance
        }
        if let (Some((service, _)), Some(upstream)) = (&self.service, &self.upstream) {
            // The instance is to blame only where it is still supposed to be there.
            if !upstream.instance().is_removed() {
                self.client.gateway.instance_failed(service, upstream.instance());
            }
            tracing::warn!(
                service = %service.name,
                instance = %upstream.instance().id,
                error = %why,
                "a reply broke off after it had begun"
            );
        }
    }

    fn write_line(&self, line: &Line, now: Instant) {
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        let first_byte = self.replied.map(|at| ms(at - self.began));
        tracing::info!(
            target: "access",
            client = %self.client.addr.ip(),
            method = %line.method,
            path = %line.path,
            service = self.service.as_ref().map(|(service, _)| &*service.name),
            instance = self.upstream.as_ref().map(|upstream| &*upstream.instance().id),
            status = self.status,
            cause = self.cause.map(Cause::name),
            attempts = self.attempts,
            bytes_in = self.upload.as_ref().map_or(0, Shared::received),
            bytes_out = self.bytes,
            complete = self.complete,
            broke_off = self.broke_off.map(tracing::field::display),
            connect_ms = ms(self.connect),
            first_byte_ms = first_byte,
            duration_ms = ms(now - self.began),
            traceparent = %line.trace,
            "request"
        );
    }
}

/// Keeps a connection for the next request, unless its instance has gone.
fn keep(instance: &Instance, conn: Box<Conn>, now: Instant, worker: usize, pool_size: usize) {
    if let (Some(pool), false) = (instance.pool(worker), instance.is_removed()) {
        pool.put(conn, now, pool_size);
        // It may have gone between the question and the answer.
        if instance.is_removed() {
            instance.close_idle();
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let now = self.ended.unwrap_or_else(Instant::now);
        // An instance has done well when its reply is over and it did not break it off. Many a stream has no other end
        // than that the client goes.
        if let (Some(upstream), 1.., None) = (&self.upstream, self.status, self.broke_off) {
            upstream.instance().succeeded(self.attempted);
        }
        match &self.service {
            Some((service, _)) => {
                service.stats().record_duration(now - self.began);
                if let Some(cause) = self.cause {
                    service.stats().failures.count(cause);
                }
            }
            None => {
                if let Some(cause) = self.cause {
                    self.client.gateway.refused(cause);
                }
            }
        }
        trace::served(&self.span, self.status);
        if let Some(cause) = self.cause {
            self.span.record("error.type", cause.name());
        }
        if let Some(line) = self.line.take() {
            self.write_line(&line, now);
        }
        self.client.request_ended(now);
    }
}
