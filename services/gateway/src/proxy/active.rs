//! One request in flight: what it holds from its head to the last byte of its response, and its [`RequestRecord`].

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hubspoke_chassis::trace;
use hubspoke_client::load::InFlight as LoadInFlight;
use tracing::Span;

use super::record::{RequestRecord, ResponseFailed};
use crate::client_conn::ClientConn;
use crate::clients::RequestSlot;
use crate::error::RequestFailure;
use crate::extras::ResponseExtras;
use crate::memory::{Charge, Memory};
use crate::replay::ReplayState;
use crate::upstream::{Admission, Conn, InFlightGuard, Instance, UpstreamService};

/// The route that spans are named after.
const ROUTE: &str = "/{service}/{*path}";

/// A client that leaves a response unread, or an instance waiting for its body, for so long may be why the instance gives
/// up.
pub(super) const SLOW_CLIENT: Duration = Duration::from_secs(1);

/// How long a client may keep sending its body after the instance has responded.
const EARLY_RESPONSE: Duration = Duration::from_secs(5);

/// One request in flight. It is dropped with the response's body, and then counted and logged.
pub(crate) struct ActiveRequest {
    client: Arc<ClientConn>,
    _load: LoadInFlight,
    /// The service, once it is known.
    service: Option<Arc<UpstreamService>>,
    _admission: Option<Admission>,
    /// Counts the request among its client's; `None` if they are not limited.
    slot: Option<RequestSlot>,
    /// The instance of the last attempt.
    upstream: Option<InFlightGuard>,
    body: Option<ReplayState>,
    /// The memory of a large head, until the response begins.
    head: Option<Charge>,
    /// What its response needs beside the service's answer.
    extras: Option<Box<ResponseExtras>>,
    /// Disabled if no subscriber records it.
    span: Span,
    /// The client left the response unread for `SLOW_CLIENT`.
    is_unread: bool,
    record: RequestRecord,
}

impl ActiveRequest {
    pub(super) fn begin<B>(client: &Arc<ClientConn>, request: &http::Request<B>) -> Box<Self> {
        let gateway = &client.gateway;
        client.request_began();
        let (source, uri) = (&gateway.source, request.uri());
        Box::new(Self {
            client: client.clone(),
            _load: gateway.load.start(),
            service: None,
            _admission: None,
            slot: None,
            upstream: None,
            body: None,
            head: None,
            extras: None,
            is_unread: false,
            span: trace::server_span(source, request.method(), uri, ROUTE, request.headers()),
            record: RequestRecord::begin(request, client.caller(request.headers()), gateway.is_sampled()),
        })
    }

    pub(super) fn began(&self) -> Instant {
        self.record.began
    }

    /// The address that the request comes from.
    pub(super) fn caller(&self) -> IpAddr {
        self.record.caller
    }

    pub(super) fn attempts(&self) -> u32 {
        self.record.attempts
    }

    /// How long the last connection took to open.
    pub(super) fn connect_time(&self) -> Duration {
        self.record.connect
    }

    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    pub(super) fn body(&self) -> Option<&ReplayState> {
        self.body.as_ref()
    }

    /// The request is for this service; without an `admission`, the service refuses it.
    pub(super) fn routed(&mut self, service: Arc<UpstreamService>, admission: Option<Admission>) {
        (self.service, self._admission) = (Some(service), admission);
    }

    /// The client has few enough requests in flight.
    pub(super) fn admitted(&mut self, slot: Option<RequestSlot>) {
        self.slot = slot;
    }

    pub(super) fn has_large_head(&mut self, charge: Charge) {
        self.head = Some(charge);
    }

    pub(super) fn has_extras(&mut self, extras: Option<Box<ResponseExtras>>) {
        self.extras = extras;
    }

    pub(super) fn take_extras(&mut self) -> Option<Box<ResponseExtras>> {
        self.extras.take()
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.client.gateway.memory
    }

    /// An upgraded connection outlives its request, and counts on.
    pub(super) fn take_slot(&mut self) -> Option<RequestSlot> {
        self.slot.take()
    }

    /// The request is ready to be sent to an instance.
    pub(super) fn prepared(&mut self, headers: &http::HeaderMap, body: Option<ReplayState>) {
        self.record.traced(headers);
        self.body = body;
    }

    pub(super) fn attempt(&mut self, instance: &Arc<Instance>, now: Instant) {
        self.upstream = Some(instance.begin());
        self.record.attempts += 1;
        self.record.attempted = now;
    }

    /// A connection was opened for the attempt that began at `since`.
    pub(super) fn connected(&mut self, since: Instant) {
        self.record.connect = since.elapsed();
    }

    /// The request has waited for an instance, for the `first` time or again.
    pub(super) fn waited(&mut self, time: Duration, first: bool) {
        self.record.waited += time;
        if let (true, Some(service)) = (first, &self.service) {
            service.stats().waits.count();
        }
    }

    /// The head of the response has arrived.
    pub(super) fn responded(&mut self, status: u16) {
        self.head = None;
        self.record.responded(status);
    }

    /// The gateway answers the request itself.
    pub(super) fn answered(&mut self, status: u16) {
        self.record.status = status;
    }

    /// The gateway answers the request with a problem document.
    pub(super) fn failed(&mut self, failure: &RequestFailure) {
        self.record.status = failure.cause.status().as_u16();
        self.record.cause = Some(failure.cause);
        let upstream = self.upstream.take();
        if failure.cause.is_upstream()
            && let Some(service) = &self.service
        {
            tracing::warn!(
                service = %service.name,
                instance = upstream.as_ref().map(|upstream| &*upstream.instance().id),
                cause = failure.cause.name(),
                attempts = failure.attempts,
                "no instance responded"
            );
        }
    }

    /// A part of the response's body goes to the client.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.record.bytes_out += bytes as u64;
    }

    /// The client has left the response unread for this long.
    pub(super) fn unread(&mut self, time: Duration) {
        self.is_unread |= time >= SLOW_CLIENT;
    }

    pub(super) fn complete(&mut self) {
        self.record.complete = true;
    }

    pub(super) fn broke_off(&mut self, error: &ResponseFailed) {
        self.record.broke_off = Some(error.to_string());
        if self.body.as_ref().is_some_and(|body| body.fault().is_some()) {
            return; // the client broke off its request, which closed the connection to the instance
        }
        if let (Some(service), Some(upstream)) = (&self.service, &self.upstream) {
            // A removed instance is shutting down, and one may give up on a client that reads too slowly: neither is a
            // failure.
            let is_unread = self.is_unread || self.client.was_blocked_for(SLOW_CLIENT);
            if !upstream.instance().is_removed() && !is_unread {
                self.client.gateway.instance_failed(service, upstream.instance());
            }
            tracing::warn!(
                service = %service.name,
                instance = %upstream.instance().id,
                error = error as &dyn std::error::Error,
                "response broke off"
            );
        }
    }

    /// The last byte of the response has been read. The connection can carry the next request once all of this one has
    /// been written: if the instance responded before that, the client may finish sending.
    pub(super) fn give_back(&mut self, mut conn: Box<Conn>, worker: usize, pool_size: usize) {
        let Some(instance) = self.upstream.as_ref().map(InFlightGuard::instance).cloned() else { return };
        if self.body.is_none() || conn.http.is_reusable() {
            let now = Instant::now();
            self.record.ended = Some(now);
            return return_to_pool(&instance, conn, now, worker, pool_size);
        }
        // Ends with the body, the timeout or the worker's event loop.
        tokio::spawn(async move {
            let idle = poll_fn(|cx| conn.http.poll_idle(cx));
            if tokio::time::timeout(EARLY_RESPONSE, idle).await == Ok(true) {
                return_to_pool(&instance, conn, Instant::now(), worker, pool_size);
            }
        });
    }
}

/// Keeps a connection for the next request, unless its instance has been removed.
fn return_to_pool(instance: &Instance, conn: Box<Conn>, now: Instant, worker: usize, pool_size: usize) {
    if let (Some(pool), false) = (instance.pool(worker), instance.is_removed()) {
        pool.put(conn, now, pool_size);
        // It may have been removed since the check.
        if instance.is_removed() {
            instance.close_idle();
        }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let record = &self.record;
        let now = record.ended.unwrap_or_else(Instant::now);
        // An instance that did not break off its response succeeded, even if the client disconnected: many streams
        // end only that way.
        if let (Some(upstream), 1.., None) = (&self.upstream, record.status, &record.broke_off) {
            upstream.instance().succeeded(record.attempted);
        }
        if let Some(service) = &self.service {
            service.stats().record_duration(now - record.began);
        }
        if let Some(cause) = record.cause {
            match &self.service {
                Some(service) => service.stats().failures.count(cause),
                None => self.client.gateway.refused(cause),
            }
        }
        trace::record_status(&self.span, record.status);
        if let Some(cause) = record.cause {
            self.span.record("error.type", cause.name());
        }
        if record.is_sampled() {
            let service = self.service.as_ref().map(|service| &*service.name);
            let instance = self.upstream.as_ref().map(|upstream| &*upstream.instance().id);
            let bytes_in = self.body.as_ref().map_or(0, ReplayState::received);
            record.log(now, service, instance, bytes_in);
        }
        self.client.request_ended(now);
    }
}
