//! One attempt: a connection to the instance, the request on it, and the head of the reply.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hub_client::protocol::HUB_INSTANCE;
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::record::Record;
use super::reply::{Relay, Reply};
use super::upload::{Shared, Upload};
use crate::error::Cause;
use crate::headers::{self, Asked};
use crate::retry::{self, Reached};
use crate::server::peer::Peer;
use crate::upstream::pool::{Conn, Pool};
use crate::upstream::{Instance, Settings, connect};

/// An instance that has not answered `Expect: 100-continue` by then gets the body all the same (RFC 9110, 10.1.1).
const CONTINUE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// A request ready to be sent.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) path: PathAndQuery,
    pub(super) headers: HeaderMap,
    /// `None` where there is no body.
    pub(super) upload: Option<Shared>,
    pub(super) asked: Asked,
}

/// What the attempts of one request have in common.
pub(super) struct Stage<'a> {
    pub(super) peer: &'a Arc<Peer>,
    pub(super) settings: &'a Settings,
    /// `None` once it was given away and can't be sent again.
    pub(super) outgoing: Option<Outgoing>,
    /// Whether to keep a copy of the head, for another attempt after this one.
    pub(super) keep: bool,
    /// Whether only a new connection will do.
    pub(super) fresh: bool,
    pub(super) deadline: Instant,
}

/// An attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) cause: Cause,
    pub(super) reached: Reached,
    /// The connection was idle before, and closed before it brought one byte: the instance has done nothing wrong.
    pub(super) stale: bool,
}

/// A reply that has begun.
pub(super) struct Exchange {
    pub(super) response: Response<Incoming>,
    pub(super) conn: Option<Conn>,
    pub(super) instance: Arc<Instance>,
    pub(super) worker: usize,
    pub(super) idle: std::time::Duration,
    pub(super) pool_size: usize,
}

impl Stage<'_> {
    /// The request, with a copy left behind where one may be needed.
    pub(super) fn take(&mut self) -> Option<Outgoing> {
        if self.keep { self.outgoing.clone() } else { self.outgoing.take() }
    }

    /// Until when the reply must have begun, were the whole request sent now.
    fn patience(&self, now: Instant) -> Instant {
        // The first attempt may take its full time; those after it only what is left.
        (now + self.settings.first_byte).min(self.deadline.max(now))
    }
}

/// Sends the request to the instance.
pub(super) async fn run(
    stage: &mut Stage<'_>,
    instance: &Arc<Instance>,
    record: &mut Record,
) -> Result<Box<Exchange>, Failed> {
    if instance.speaks_h2 { h2(stage, instance, record).await } else { h1(stage, instance, record).await }
}

async fn h1(
    stage: &mut Stage<'_>,
    instance: &Arc<Instance>,
    record: &mut Record,
) -> Result<Box<Exchange>, Failed> {
    let (peer, gateway) = (stage.peer, &stage.peer.gateway);
    let began = Instant::now();
    let surely = !stage.outgoing.as_ref().is_some_and(|outgoing| retry::is_idempotent(&outgoing.method));
    let pool = instance.pool(peer.worker).filter(|_| !stage.fresh);
    let idle = pool.and_then(|pool| pool.take(began, gateway.config.timeouts.pool_idle, surely));
    let mut conn = match (idle, pool) {
        (Some(conn), _) => conn,
        (None, pool) => {
            let conn = connection(stage, instance, pool).await.map_err(unreached)?;
            record.connect = began.elapsed();
            conn
        }
    };
    let Some(outgoing) = stage.take() else { return Err(unreached(Cause::ConnectFailed)) };
    let upload = outgoing.upload.clone();
    let request = outgoing.into_h1();
    let mut sending = pin!(conn.sender.try_send_request(request));
    let mut waiting = Waiting::new(stage, upload);
    let sent = poll_fn(|cx| {
        let ended = conn.poll(cx).is_ready();
        match sending.as_mut().poll(cx) {
            Poll::Ready(sent) => Poll::Ready(Some(sent)),
            Poll::Pending if ended => Poll::Ready(None),
            Poll::Pending => waiting.poll(cx).map(|()| None),
        }
    })
    .await;
    let replied = conn.link.replied();
    let error = match sent {
        Some(Ok(response)) => {
            return Ok(Box::new(Exchange::new(stage, instance, response, Some(conn))));
        }
        Some(Err(error)) => error,
        None if waiting.is_over() => {
            let reached = if replied { Reached::Reply } else { Reached::Instance };
            return Err(Failed { cause: Cause::ReplyTimeout, reached, stale: false });
        }
        None => {
            return Err(Failed { cause: Cause::ConnectionBroken, reached: Reached::Instance, stale: false });
        }
    };
    let mut error = error;
    let reached = match error.take_message() {
        Some(request) => {
            stage.outgoing.get_or_insert_with(|| Outgoing::from_h1(request));
            Reached::Nothing
        }
        None if replied => Reached::Reply,
        None if conn.link.sent() => Reached::Instance,
        None => Reached::Nothing,
    };
    tracing::debug!(
        service = %instance.service,
        instance = %instance.id,
        error = error.error() as &dyn std::error::Error,
        "an attempt failed"
    );
    let cause = if replied { Cause::BadReply } else { Cause::ConnectionBroken };
    Err(Failed { cause, reached, stale: conn.reused && !replied })
}

/// A connection where none is idle: with a pool, whichever is there first, and without one, one of its own.
async fn connection(stage: &Stage<'_>, instance: &Arc<Instance>, pool: Option<&Pool>) -> Result<Conn, Cause> {
    let timeout = stage.settings.connect;
    let Some(pool) = pool else {
        let made = connect::h1(instance, timeout).await?;
        return Ok(Conn::new(made, Instant::now()));
    };
    let (waiting, start) = pool.wait();
    if start {
        let pool_size = stage.peer.gateway.config.limits.pool_size;
        connect::h1_into_pool(instance.clone(), stage.peer.worker, timeout, pool_size);
    }
    match tokio::time::timeout_at(stage.deadline.into(), waiting).await {
        Ok(Ok(conn)) => conn,
        Ok(Err(_)) => Err(Cause::ConnectFailed),
        Err(_) => Err(Cause::ConnectTimeout),
    }
}

async fn h2(
    stage: &mut Stage<'_>,
    instance: &Arc<Instance>,
    record: &mut Record,
) -> Result<Box<Exchange>, Failed> {
    let pool = instance.pool(stage.peer.worker);
    let began = Instant::now();
    let (mut sender, reused) = match pool.and_then(|pool| pool.h2()).filter(|_| !stage.fresh) {
        Some(sender) => (sender, true),
        None => {
            let (sender, connection) =
                connect::h2(instance, stage.settings.connect).await.map_err(unreached)?;
            record.connect = began.elapsed();
            // Ends with its last sender, or with this worker's event loop.
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error = &error as &dyn std::error::Error, "an h2c connection broke");
                }
            });
            if let (Some(pool), false) = (pool, instance.is_gone()) {
                pool.set_h2(sender.clone());
            }
            (sender, false)
        }
    };
    let Some(outgoing) = stage.take() else { return Err(unreached(Cause::ConnectFailed)) };
    let upload = outgoing.upload.clone();
    let mut sending = pin!(sender.try_send_request(outgoing.into_h2()));
    let mut waiting = Waiting::new(stage, upload);
    let sent = poll_fn(|cx| match sending.as_mut().poll(cx) {
        Poll::Ready(sent) => Poll::Ready(Some(sent)),
        Poll::Pending => waiting.poll(cx).map(|()| None),
    })
    .await;
    match sent {
        Some(Ok(response)) => Ok(Box::new(Exchange::new(stage, instance, response, None))),
        None => Err(Failed { cause: Cause::ReplyTimeout, reached: Reached::Instance, stale: false }),
        Some(Err(mut error)) => {
            let unsent = error.take_message();
            let reached = if unsent.is_some() { Reached::Nothing } else { Reached::Instance };
            if let Some(request) = unsent {
                stage.outgoing.get_or_insert_with(|| Outgoing::from_h1(request));
            }
            let gone = error.error().is_canceled() || error.error().is_closed();
            Err(Failed { cause: Cause::ConnectionBroken, reached, stale: reused && gone })
        }
    }
}

fn unreached(cause: Cause) -> Failed {
    Failed { cause, reached: Reached::Nothing, stale: false }
}

impl Outgoing {
    /// The request as HTTP/1 has it.
    pub(super) fn into_h1(mut self) -> Request<Upload> {
        let mut informational = None;
        if let (true, Some(upload)) = (self.asked.expect_continue, &self.upload) {
            self.headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
            let (open, opened) = oneshot::channel::<()>();
            upload.hold_back(async move {
                // Opened, given up by the connection, or too late: the body goes on.
                let _ = tokio::time::timeout(CONTINUE_TIMEOUT, opened).await;
            });
            informational = Some(open);
        }
        // Said here, or the body of a GET without a length would be left out.
        if self.upload.is_some() && !self.headers.contains_key(CONTENT_LENGTH) {
            self.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let mut request = Request::new(self.upload.as_ref().map_or(Upload::Empty, Shared::upload));
        *request.method_mut() = self.method;
        *request.uri_mut() = Uri::from(self.path);
        *request.headers_mut() = self.headers;
        if let Some(open) = informational {
            let open = std::sync::Mutex::new(Some(open));
            hyper::ext::on_informational(&mut request, move |reply| {
                if reply.status() == StatusCode::CONTINUE
                    && let Ok(mut open) = open.lock()
                    && let Some(open) = open.take()
                {
                    let _ = open.send(()); // the body may be waited for no longer
                }
            });
        }
        request
    }

    /// The request as HTTP/2 has it: the host is part of the target.
    fn into_h2(mut self) -> Request<Upload> {
        let host = self.headers.remove(HOST);
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = host.as_ref().and_then(|host| host.as_bytes().try_into().ok());
        uri.path_and_query = Some(self.path.clone());
        let mut request = self.into_h1();
        if let Ok(uri) = Uri::from_parts(uri) {
            *request.uri_mut() = uri;
        }
        headers::for_h2(request.headers_mut());
        *request.version_mut() = Version::HTTP_2;
        request
    }

    /// What came back unsent.
    fn from_h1(request: Request<Upload>) -> Self {
        let (parts, body) = request.into_parts();
        let mut headers = parts.headers;
        if let Some(authority) = parts.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            headers.insert(HOST, host);
        }
        Self {
            method: parts.method,
            path: parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
            headers,
            upload: body.into_shared(),
            asked: Asked::default(),
        }
    }
}

/// Waits for the reply to begin. The clock runs from when the instance has the whole request.
struct Waiting {
    timer: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
    until: Instant,
    patience: std::time::Duration,
    upload: Option<Shared>,
    over: bool,
}

impl Waiting {
    fn new(stage: &Stage<'_>, upload: Option<Shared>) -> Self {
        let now = Instant::now();
        let until = stage.patience(now);
        Self { timer: None, until, patience: until - now, upload, over: false }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = self.until;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until.into())));
        loop {
            std::task::ready!(timer.as_mut().poll(cx));
            let since = match &self.upload {
                Some(upload) => upload.ended().unwrap_or_else(Instant::now),
                None => self.until - self.patience,
            };
            let until = since + self.patience;
            if until <= Instant::now() {
                self.over = true;
                return Poll::Ready(());
            }
            timer.as_mut().reset(until.into());
        }
    }

    fn is_over(&self) -> bool {
        self.over
    }
}

impl Exchange {
    pub(super) fn new(
        stage: &Stage<'_>,
        instance: &Arc<Instance>,
        response: Response<Incoming>,
        conn: Option<Conn>,
    ) -> Self {
        Self {
            response,
            conn,
            instance: instance.clone(),
            worker: stage.peer.worker,
            idle: stage.settings.idle,
            pool_size: stage.peer.gateway.config.limits.pool_size,
        }
    }

    /// The reply as the client gets it.
    pub(super) fn into_reply(self, mut record: Box<Record>) -> Response<Reply> {
        let Self { response, conn, instance, worker, idle, pool_size } = self;
        let (mut parts, body) = response.into_parts();
        let status = parts.status.as_u16();
        record.status = status;
        record.replied = Some(Instant::now());
        instance.stats.replied(status);
        headers::reply(&mut parts.headers, parts.status == StatusCode::SWITCHING_PROTOCOLS);
        if !parts.headers.contains_key(HUB_INSTANCE) {
            parts.headers.insert(HUB_INSTANCE, instance.label.clone());
        }
        parts.version = Version::HTTP_11;
        let idle = (!is_live(&parts.headers)).then_some(idle);
        let relay = Relay { body, conn, idle, timer: None, pool_size, worker };
        Response::from_parts(parts, Reply::relay(relay, record))
    }
}

/// Whether silence is part of the reply: server-sent events and gRPC streams.
fn is_live(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let is = |name: &[u8]| kind.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    is(b"text/event-stream") || is(b"application/grpc")
}
