//! The facts of one request, for metrics, spans and the access log.

use std::error::Error;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Request};

use crate::error::{CLIENT_CLOSED, Cause};
use crate::headers::TRACEPARENT;

/// The facts of one request so far.
pub(super) struct RequestRecord {
    pub(super) began: Instant,
    /// The address that the request comes from.
    pub(super) caller: IpAddr,
    /// 0 until there is a response.
    pub(super) status: u16,
    pub(super) cause: Option<Cause>,
    pub(super) attempts: u32,
    /// When the last attempt began.
    pub(super) attempted: Instant,
    /// How long the last connection took to open.
    pub(super) connect: Duration,
    /// How long it waited for an instance.
    pub(super) waited: Duration,
    /// When the head of the response came. Set only for the access log: reading the clock costs time.
    responded: Option<Instant>,
    pub(super) bytes_out: u64,
    pub(super) complete: bool,
    /// When the connection to the instance was free again, if that is known.
    pub(super) ended: Option<Instant>,
    /// Why the response broke off.
    pub(super) broke_off: Option<String>,
    /// `None` if the request is not in the access log's sample.
    access: Option<Box<AccessEntry>>,
}

/// The part of a request's head that the access log shows.
struct AccessEntry {
    method: Method,
    path: String,
    trace: String,
}

/// Why a response broke off after it had begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResponseFailed {
    #[error("the instance broke off its response")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
    #[error("timed out waiting for the rest of the response")]
    Silent,
    #[error("the response can't be compressed")]
    Compression(#[source] std::io::Error),
    #[error("the instance is no longer registered")]
    Removed,
}

impl RequestRecord {
    /// A request that begins now. `sampled`: it goes to the access log.
    pub(super) fn begin<B>(request: &Request<B>, caller: IpAddr, sampled: bool) -> Self {
        let access = sampled.then(|| {
            Box::new(AccessEntry {
                method: request.method().clone(),
                path: request.uri().path().to_owned(),
                trace: traceparent(request.headers()),
            })
        });
        let began = Instant::now();
        Self {
            began,
            caller,
            status: 0,
            cause: None,
            attempts: 0,
            attempted: began,
            connect: Duration::ZERO,
            waited: Duration::ZERO,
            responded: None,
            bytes_out: 0,
            complete: false,
            ended: None,
            broke_off: None,
            access,
        }
    }

    /// Records the trace that the instance gets: the client may have sent none.
    pub(super) fn traced(&mut self, headers: &HeaderMap) {
        if let Some(access) = &mut self.access {
            access.trace = traceparent(headers);
        }
    }

    /// The head of the response has arrived.
    pub(super) fn responded(&mut self, status: u16) {
        self.status = status;
        self.responded = self.access.as_ref().map(|_| Instant::now());
    }

    /// Whether the request goes to the access log.
    pub(super) fn is_sampled(&self) -> bool {
        self.access.is_some()
    }

    /// Writes the request to the access log.
    pub(super) fn log(&self, now: Instant, service: Option<&str>, instance: Option<&str>, bytes_in: u64) {
        let Some(access) = &self.access else { return };
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        tracing::info!(
            target: "access",
            client = %self.caller,
            method = %access.method,
            path = %access.path,
            service,
            instance,
            status = self.status,
            cause = self.cause.map(Cause::name).or((self.status == 0).then_some(CLIENT_CLOSED)),
            attempts = self.attempts,
            bytes_in,
            bytes_out = self.bytes_out,
            complete = self.complete,
            broke_off = self.broke_off.as_ref().map(tracing::field::display),
            wait_ms = (!self.waited.is_zero()).then(|| ms(self.waited)),
            connect_ms = ms(self.connect),
            first_byte_ms = self.responded.map(|at| ms(at - self.began)),
            duration_ms = ms(now - self.began),
            traceparent = %access.trace,
            "request"
        );
    }
}

fn traceparent(headers: &HeaderMap) -> String {
    headers.get(TRACEPARENT).and_then(|trace| trace.to_str().ok()).unwrap_or_default().to_owned()
}
