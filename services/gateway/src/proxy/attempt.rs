//! One attempt: a connection to the instance, the request on it, and the head of the reply.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::header::{CONTENT_TYPE, EXPECT, HOST, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::record::Record;
use super::reply::{Relay, Reply, Source};
use super::tunnel::Tunnel;
use super::upload::{Shared, Upload};
use crate::client_conn::ClientConn;
use crate::error::Cause;
use crate::headers::{self, HUB_INSTANCE, HopOptions};
use crate::retry::Reached;
use crate::upstream::h1::{Conn, Outbound};
use crate::upstream::{Instance, Settings, connect};

/// An instance that has not answered `Expect: 100-continue` by then gets the body all the same (RFC 9110, 10.1.1).
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// A request ready to be sent.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) path: PathAndQuery,
    pub(super) headers: HeaderMap,
    /// `None` where there is no body.
    pub(super) upload: Option<Shared>,
    pub(super) asked: HopOptions,
}

/// What the attempts of one request have in common.
pub(super) struct Stage {
    pub(super) client: Arc<ClientConn>,
    pub(super) settings: Arc<Settings>,
    pub(super) outgoing: Outgoing,
    /// Whether an attempt has failed before.
    pub(super) is_retry: bool,
    /// Whether an idle connection won't do: another one has just turned out to be closed.
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
    pub(super) response: Response<()>,
    pub(super) source: Source,
    instance: Arc<Instance>,
    worker: usize,
    idle: Duration,
    pool_size: usize,
}

/// Sends the request to the instance.
pub(super) async fn run(
    stage: &mut Stage,
    instance: &Arc<Instance>,
    now: Instant,
    record: &mut Record,
) -> Result<Box<Exchange>, Failed> {
    if instance.speaks_h2() {
        // Boxed, since most requests don't need the room that it takes.
        return Box::pin(h2(stage, instance, now, record)).await;
    }
    let client = &stage.client;
    let probe = !stage.outgoing.method.is_idempotent();
    let pool_idle = client.gateway.config.timeouts.pool_idle;
    let pool = instance.pool(client.worker).filter(|_| !stage.fresh);
    let conn = match pool.and_then(|pool| pool.take(now, pool_idle, probe)) {
        Some(conn) => conn,
        None => {
            // Boxed as well: mostly there is an idle one.
            let conn = Box::pin(connection(stage, instance)).await.map_err(unreached)?;
            record.connect = now.elapsed();
            conn
        }
    };
    exchange(stage, instance, conn, now + record.connect, false).await
}

/// Sends a request that asks for another protocol, on a connection that is not shared. If the instance agrees, the reply is a
/// [`Tunnel`]; if it declines, its reply is passed on like any other.
pub(super) async fn upgrade(
    stage: &mut Stage,
    instance: &Arc<Instance>,
    now: Instant,
    record: &mut Record,
) -> Result<Box<Exchange>, Failed> {
    let conn = connect::h1(instance, stage.settings.connect).await.map_err(unreached)?;
    record.connect = now.elapsed();
    let mut exchange = exchange(stage, instance, conn, now + record.connect, true).await?;
    if exchange.response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Source::H1(conn) = exchange.source
    {
        let (stream, first) = conn.into_switched();
        let tunnel = Tunnel { instance: stream, first, _in_flight: instance.begin() };
        exchange.source = Source::Tunnel(Box::new(tunnel));
    }
    Ok(exchange)
}

/// Sends the request on a connection, and waits for the head of the reply.
async fn exchange(
    stage: &mut Stage,
    instance: &Arc<Instance>,
    mut conn: Box<Conn>,
    now: Instant,
    upgrade: bool,
) -> Result<Box<Exchange>, Failed> {
    let mut waiting = Waiting::new(stage, now);
    conn.begin(stage.outgoing.outbound(upgrade));
    let outcome = poll_fn(|cx| match conn.poll_reply(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => waiting.poll(cx, conn.blocked()).map(|()| None),
    })
    .await;
    let error = match outcome {
        Some(Ok(response)) => {
            return Ok(Box::new(Exchange::new(stage, instance, response, Source::H1(conn))));
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    tracing::debug!(
        service = %instance.service,
        instance = %instance.id,
        error = error.as_ref().map(|error| error as &dyn std::error::Error),
        "an attempt failed"
    );
    let (reached, broken) = match (conn.replied(), conn.sent()) {
        (true, _) => (Reached::Reply, Cause::BadReply),
        (false, true) => (Reached::Instance, Cause::ConnectionBroken),
        (false, false) => (Reached::Nothing, Cause::ConnectionBroken),
    };
    let cause = if error.is_some() { broken } else { Cause::ReplyTimeout };
    Err(Failed { cause, reached, stale: error.is_some() && conn.reused && !conn.replied() })
}

/// A connection where none is idle: whichever is there first, a new one or one that another request gives back.
async fn connection(stage: &Stage, instance: &Arc<Instance>) -> Result<Box<Conn>, Cause> {
    let timeout = stage.settings.connect;
    let Some(pool) = instance.pool(stage.client.worker) else {
        return connect::h1(instance, timeout).await;
    };
    let (waiting, start) = pool.wait(Instant::now());
    if start {
        let pool_size = stage.client.gateway.config.limits.pool_size;
        connect::h1_into_pool(instance.clone(), stage.client.worker, timeout, pool_size);
    }
    match tokio::time::timeout_at(stage.deadline.into(), waiting).await {
        Ok(Ok(conn)) => conn,
        Ok(Err(_)) => Err(Cause::ConnectFailed),
        Err(_) => Err(Cause::ConnectTimeout),
    }
}

async fn h2(
    stage: &mut Stage,
    instance: &Arc<Instance>,
    now: Instant,
    record: &mut Record,
) -> Result<Box<Exchange>, Failed> {
    let pool = instance.pool(stage.client.worker);
    let (mut sender, reused) = match pool.and_then(|pool| pool.h2()).filter(|_| !stage.fresh) {
        Some(sender) => (sender, true),
        None => {
            let (sender, connection) =
                connect::h2(instance, stage.settings.connect).await.map_err(unreached)?;
            record.connect = now.elapsed();
            // Ends with its last sender, or with this worker's event loop.
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error = &error as &dyn std::error::Error, "an h2c connection broke");
                }
            });
            if let (Some(pool), false) = (pool, instance.is_removed()) {
                pool.set_h2(sender.clone());
            }
            (sender, false)
        }
    };
    let mut waiting = Waiting::new(stage, now + record.connect);
    let mut sending = pin!(sender.try_send_request(stage.outgoing.clone().into_h2()));
    let sent = poll_fn(|cx| match sending.as_mut().poll(cx) {
        Poll::Ready(sent) => Poll::Ready(Some(sent)),
        Poll::Pending => waiting.poll(cx, None).map(|()| None),
    })
    .await;
    match sent {
        Some(Ok(response)) => {
            let (parts, body) = response.into_parts();
            let response = Response::from_parts(parts, ());
            Ok(Box::new(Exchange::new(stage, instance, response, Source::H2(body))))
        }
        None => Err(Failed { cause: Cause::ReplyTimeout, reached: Reached::Instance, stale: false }),
        Some(Err(error)) => {
            let declined = declined(error.error());
            let unseen = error.message().is_some() || declined.is_some();
            let gone = error.error().is_canceled() || error.error().is_closed();
            Err(Failed {
                cause: Cause::ConnectionBroken,
                reached: if unseen { Reached::Nothing } else { Reached::Instance },
                stale: (reused && gone) || declined == Some(Declined::Connection),
            })
        }
    }
}

/// What an instance has refused to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Declined {
    Request,
    /// It goes away in good order, and takes no more requests on this connection.
    Connection,
}

/// Whether the instance says that it has not looked at the request (RFC 9113, 8.7): then it may be sent again, whatever
/// it is. A GOAWAY ends at once the requests alone that are behind the last that it will answer.
fn declined(error: &hyper::Error) -> Option<Declined> {
    let error =
        std::error::Error::source(error)?.downcast_ref::<h2::Error>().filter(|error| error.is_remote())?;
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) if error.is_reset() => Some(Declined::Request),
        _ if error.is_go_away() => Some(Declined::Connection),
        _ => None,
    }
}

fn unreached(cause: Cause) -> Failed {
    Failed { cause, reached: Reached::Nothing, stale: false }
}

impl Outgoing {
    /// The request as one HTTP/1 attempt sends it.
    fn outbound(&mut self, upgrade: bool) -> Outbound<'_> {
        let go_on = self.expects_continue();
        Outbound {
            method: &self.method,
            path: &self.path,
            headers: &self.headers,
            upload: self.upload.as_ref().map(Shared::upload),
            go_on,
            upgrade,
        }
    }

    /// Where the client waits for `100 Continue`, so does its body: the instance is asked, and who hears its answer lets
    /// the body go on.
    fn expects_continue(&mut self) -> Option<oneshot::Sender<()>> {
        let upload = self.upload.as_ref().filter(|_| self.asked.expect_continue)?;
        self.headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
        let (go_on, told) = oneshot::channel::<()>();
        upload.hold_back(async move {
            // Told, given up by the connection, or too late: the body goes on.
            let _ = tokio::time::timeout(CONTINUE_TIMEOUT, told).await;
        });
        Some(go_on)
    }

    /// The request as HTTP/2 has it: the host is part of the target.
    fn into_h2(mut self) -> Request<Upload> {
        let go_on = self.expects_continue();
        let host = self.headers.remove(HOST);
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = host.as_ref().and_then(|host| host.as_bytes().try_into().ok());
        uri.path_and_query = Some(self.path);
        let mut request = Request::new(self.upload.as_ref().map_or(Upload::Empty, Shared::upload));
        *request.method_mut() = self.method;
        if let Ok(uri) = Uri::from_parts(uri) {
            *request.uri_mut() = uri;
        }
        headers::for_h2(&mut self.headers);
        *request.headers_mut() = self.headers;
        *request.version_mut() = Version::HTTP_2;
        if let Some(go_on) = go_on {
            let go_on = std::sync::Mutex::new(Some(go_on));
            hyper::ext::on_informational(&mut request, move |reply| {
                if reply.status() == StatusCode::CONTINUE
                    && let Ok(mut go_on) = go_on.lock()
                    && let Some(go_on) = go_on.take()
                {
                    let _ = go_on.send(()); // the body may be waited for no longer
                }
            });
        }
        request
    }
}

/// Waits for the reply to begin. The clock runs from when the instance has the whole request; before that, from when
/// it stopped reading.
struct Waiting {
    timer: Option<Pin<Box<Sleep>>>,
    began: Instant,
    /// How long the reply may take to begin.
    patience: Duration,
    /// How long the instance may not read.
    idle: Duration,
    upload: Option<Shared>,
}

impl Waiting {
    fn new(stage: &Stage, began: Instant) -> Self {
        let first_byte = stage.settings.first_byte;
        // The first attempt may take its full time; those after it only what is left.
        let left = stage.deadline.saturating_duration_since(began);
        let patience = if stage.is_retry { first_byte.min(left) } else { first_byte };
        let upload = stage.outgoing.upload.clone();
        Self { timer: None, began, patience, idle: stage.settings.idle, upload }
    }

    fn poll(&mut self, cx: &mut Context<'_>, blocked: Option<Instant>) -> Poll<()> {
        let first =
            self.began + if self.upload.is_some() { self.patience.min(self.idle) } else { self.patience };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(first.into())));
        loop {
            std::task::ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            let until = match (&self.upload, blocked) {
                (None, _) => self.began + self.patience,
                (Some(_), Some(since)) => since + self.idle,
                // While the client is waited for, the body has a clock of its own.
                (Some(upload), None) => upload.ended().unwrap_or(now) + self.patience,
            };
            if until <= now {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until.into());
        }
    }
}

impl Exchange {
    fn new(stage: &Stage, instance: &Arc<Instance>, response: Response<()>, source: Source) -> Self {
        Self {
            response,
            source,
            instance: instance.clone(),
            worker: stage.client.worker,
            idle: stage.settings.idle,
            pool_size: stage.client.gateway.config.limits.pool_size,
        }
    }

    /// The reply as the client gets it.
    pub(super) fn into_reply(self, mut record: Box<Record>) -> Response<Reply> {
        let Self { response, source, instance, worker, idle, pool_size } = self;
        let (mut parts, ()) = response.into_parts();
        let status = parts.status.as_u16();
        record.status = status;
        record.replied();
        instance.stats.count_reply(status);
        headers::reply(&mut parts.headers, parts.status == StatusCode::SWITCHING_PROTOCOLS);
        parts.headers.entry(HUB_INSTANCE).or_insert_with(|| instance.label.clone());
        parts.version = Version::HTTP_11;
        let idle = (!is_live(&parts.headers)).then_some(idle);
        let reply = match source {
            Source::Tunnel(tunnel) => Reply::tunnel(tunnel, record),
            source => Reply::relay(Relay { source, idle, timer: None, pool_size, worker }, record),
        };
        Response::from_parts(parts, reply)
    }
}

/// Whether silence is part of the reply: server-sent events and gRPC streams.
fn is_live(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let is = |name: &[u8]| kind.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    is(b"text/event-stream") || is(b"application/grpc")
}
