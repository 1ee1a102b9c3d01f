//! An HTTP/1 client's connection: a request in, a reply out, then perhaps another.
//!
//! It is one task, and does one request at a time: what a client sends ahead waits in its socket. While a request is
//! served, the connection reads on only to learn that its client has gone, and ends with it.
//!
//! What is read goes through the worker's one buffer, and what was read is the request's: a connection that waits for one
//! owns its socket and little else.
//!
//! Left out: clients that end their side behind a request and still wait for the reply. They count as gone, since most
//! that do so are.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use self::body::{Inlet, Lent};
use self::reply::Asked;
use crate::client_conn::{ClientConn, ConnCommand};
use crate::edge::framing::{Head, Heads};
use crate::error::{Cause, Failure};
use crate::http1::encoder::Encoder;
use crate::http1::outbox::Outbox;
use crate::http1::{QUEUED, fields};
use crate::proxy;
use crate::proxy::client_body::ClientBody;
use crate::proxy::reply::Reply;

pub(crate) mod body;
mod reply;

/// A connection.
pub(super) struct Connection {
    client: Arc<ClientConn>,
    /// `None` while a request's body has it.
    inlet: Option<Inlet>,
    outlet: OwnedWriteHalf,
    out: Outbox,
    heads: Heads,
    /// The body that is being read.
    lent: Option<Lent>,
    /// A body did not come to its end: no request can follow.
    cut: bool,
    /// The gateway stops: this request is the last.
    draining: bool,
    /// The reply ends with the connection: where that ends before, it must be reset, or the reply would look whole.
    open_ended: bool,
}

/// How a connection ends.
pub(super) enum End {
    /// There is nothing more to say. `linger`: the client may still be sending.
    Closed { linger: bool },
    /// The client is told why, and that is the last of it.
    Refused(Failure),
    /// The bytes that follow belong to another protocol.
    Upgraded(Reply),
}

const CLOSED: End = End::Closed { linger: false };

impl Connection {
    /// `first` was read already.
    pub(super) fn new(stream: TcpStream, client: Arc<ClientConn>, first: Vec<u8>) -> Self {
        let (half, outlet) = stream.into_split();
        Self {
            inlet: Some(Inlet { half, bytes: first.into() }),
            outlet,
            out: Outbox::default(),
            heads: Heads::new(client.gateway.config.limits.head()),
            lent: None,
            cut: false,
            draining: false,
            open_ended: false,
            client,
        }
    }

    /// Serves one request after the other.
    pub(super) async fn run(&mut self) -> End {
        loop {
            if let Err(end) = self.exchange().await {
                return end;
            }
        }
    }

    /// One request and its reply. Fails where no other can follow. What needs no waiting is done elsewhere, so that no
    /// more than what waits is kept meanwhile.
    async fn exchange(&mut self) -> Result<(), End> {
        let head = poll_fn(|cx| self.poll_head(cx)).await?;
        let (asked, handling) = self.begin(head);
        let reply = {
            let mut handling = pin!(handling);
            poll_fn(|cx| self.poll_handling(cx, handling.as_mut())).await?
        };
        let mut sending = self.begin_reply(reply, asked);
        poll_fn(|cx| self.poll_sending(cx, &mut sending)).await?;
        poll_fn(|cx| self.poll_rest(cx, &mut sending)).await
    }

    /// The socket, and what was read from it; `None` where a body still has it.
    pub(super) fn into_stream(self) -> Option<(TcpStream, Bytes)> {
        let Some(Inlet { half, bytes }) = self.inlet else {
            if self.open_ended {
                self.outlet.forget(); // it would say that this is the end, and not that the reply broke off
            }
            return None;
        };
        half.reunite(self.outlet).ok().map(|stream| (stream, bytes))
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, End>> {
        if let Some(end) = self.ordered(cx) {
            return Poll::Ready(Err(end));
        }
        loop {
            let Some(inlet) = &mut self.inlet else { return Poll::Ready(Err(CLOSED)) };
            match self.heads.read(&mut inlet.bytes) {
                Ok(Some(head)) => {
                    self.client.set_reading_head(false);
                    return Poll::Ready(Ok(head));
                }
                // Only a head stops the clock, or empty lines would turn it back for ever.
                Ok(None) if self.heads.is_begun() => self.client.set_reading_head(true),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Err(End::Refused(fault.into()))),
            }
            match inlet.poll_read(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(_) => return Poll::Ready(Err(CLOSED)),
                // After reading: what has come already is no longer an idle connection's, and is answered.
                Poll::Pending if self.draining && !self.heads.is_begun() => return Poll::Ready(Err(CLOSED)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn begin(&mut self, head: Head) -> (Asked, impl Future<Output = Response<Reply>> + use<>) {
        let Head { parts, body, keep_alive, holds_back } = head;
        let head_only = parts.method == Method::HEAD;
        let asked = Asked { version: parts.version, head_only, keep_alive };
        let body = match self.inlet.take_if(|_| !body.is_over()) {
            Some(inlet) => {
                let (lent, body) = body::lend(inlet, body, holds_back);
                self.lent = Some(lent);
                ClientBody::H1(body)
            }
            None => ClientBody::None,
        };
        (asked, proxy::handle(self.client.clone(), Request::from_parts(parts, body)))
    }

    fn begin_reply(&mut self, reply: Response<Reply>, mut asked: Asked) -> Sending {
        // Who still waits to be asked for a body is not asked any more, and can't know where the next request begins.
        let unasked = self.lent.as_ref().is_some_and(Lent::is_held_back);
        asked.keep_alive &= !self.cut && !self.draining && !unasked;
        let (parts, reply) = reply.into_parts();
        let length = reply.size_hint().exact();
        let (encoder, keep_alive) = self.out.write_head(|out| reply::encode(out, &parts, length, asked));
        if encoder == Encoder::UntilEnd {
            self.set_open_ended(true);
        }
        let is_switch = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        fields::put(parts.headers);
        let then = match keep_alive {
            _ if is_switch => Then::Switch,
            true => Then::GoOn,
            false => Then::Close,
        };
        let mut sending = Sending { reply: Some(reply), encoder, then };
        if !is_switch {
            sending.end_if_over(&mut self.out);
        }
        sending
    }

    /// Waits for the reply's head.
    fn poll_handling(
        &mut self,
        cx: &mut Context<'_>,
        handling: Pin<&mut impl Future<Output = Response<Reply>>>,
    ) -> Poll<Result<Response<Reply>, End>> {
        if let Some(end) = self.ordered(cx) {
            return Poll::Ready(Err(end));
        }
        self.attend();
        if let Poll::Ready(reply) = handling.poll(cx) {
            if self.lent.is_some() {
                let _ = self.poll_inlet(cx); // the head says what has become of the body
            }
            return Poll::Ready(Ok(reply));
        }
        let end = self.poll_inlet(cx);
        if self.lent.as_ref().is_some_and(Lent::asks) {
            self.out.push(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
        }
        if end.is_ready() || matches!(self.poll_write(cx), Poll::Ready(Err(_))) {
            return Poll::Ready(Err(CLOSED));
        }
        Poll::Pending
    }

    /// Sends the reply to its last byte.
    fn poll_sending(&mut self, cx: &mut Context<'_>, sending: &mut Sending) -> Poll<Result<(), End>> {
        if let Some(end) = self.ordered(cx) {
            return Poll::Ready(Err(end));
        }
        self.attend();
        loop {
            let waits = sending.fetch(cx, &mut self.out).is_pending();
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) if sending.is_over() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) if !waits => {}
                Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
                Poll::Ready(Ok(())) | Poll::Pending => return self.poll_inlet(cx).map(Err),
            }
        }
    }

    /// After the reply: waits for the end of the request, which an instance may have answered before.
    fn poll_rest(&mut self, cx: &mut Context<'_>, sending: &mut Sending) -> Poll<Result<(), End>> {
        match (sending.then, sending.reply.take()) {
            (Then::Switch, Some(reply)) => return Poll::Ready(Err(End::Upgraded(reply))),
            (Then::Switch, None) | (Then::BreakOff, _) => return Poll::Ready(Err(CLOSED)),
            (Then::GoOn | Then::Close, _) => {}
        }
        if self.open_ended {
            self.set_open_ended(false);
        }
        if let Some(lent) = &self.lent {
            if lent.is_held_back() {
                lent.give_up();
            }
            if let Some(end) = self.ordered(cx) {
                return Poll::Ready(Err(end));
            }
            if self.poll_inlet(cx).is_pending() && self.lent.is_some() {
                return Poll::Pending;
            }
        }
        // At a stop too: what has come already is answered, and that reply says that it is the last.
        if sending.then == Then::GoOn && !self.cut {
            return Poll::Ready(Ok(()));
        }
        let more = self.inlet.as_ref().is_some_and(|inlet| !inlet.bytes.is_empty());
        Poll::Ready(Err(End::Closed { linger: self.cut || more }))
    }

    /// Takes the reading side back when the body is over, and reads on then. Ready where the client has gone.
    fn poll_inlet(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(lent) = &mut self.lent {
            let back = ready!(lent.poll_back(cx));
            self.cut |= !back.whole;
            (self.inlet, self.lent) = (Some(back.inlet), None);
        }
        match &mut self.inlet {
            // What has been read is for the next request.
            Some(inlet) if inlet.bytes.is_empty() && !self.cut => match ready!(inlet.poll_read(cx)) {
                Ok(true) => Poll::Pending,
                Ok(false) | Err(_) => Poll::Ready(CLOSED),
            },
            _ => Poll::Pending,
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        while !self.out.is_empty() {
            let written = self.out.poll_write(Pin::new(&mut self.outlet), cx);
            self.client.set_write_blocked(written.is_pending());
            match ready!(written) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Err(CLOSED)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn set_open_ended(&mut self, open_ended: bool) {
        self.open_ended = open_ended;
        let linger = open_ended.then_some(Duration::ZERO);
        // Refused only on a dead socket.
        let _ = socket2::SockRef::from(self.outlet.as_ref()).set_linger(linger);
    }

    /// What follows will look after the body itself.
    fn attend(&self) {
        if let Some(lent) = &self.lent {
            lent.attended();
        }
    }

    fn ordered(&mut self, cx: &Context<'_>) -> Option<End> {
        match self.client.command(cx.waker()) {
            ConnCommand::Continue => None,
            ConnCommand::Drain => {
                self.draining = true;
                None
            }
            ConnCommand::Timeout => Some(End::Refused(Failure::new(Cause::RequestTimeout))),
            ConnCommand::Close | ConnCommand::Abort => Some(CLOSED),
        }
    }
}

/// A reply on its way out.
struct Sending {
    /// `None` when its last byte is in the outbox.
    reply: Option<Reply>,
    encoder: Encoder,
    then: Then,
}

/// What follows a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    Close,
    /// It broke off, and the client must learn that from the end of the connection.
    BreakOff,
    Switch,
}

impl Sending {
    /// Fetches of the body what there is, while little of it waits. Pending where the instance is waited for.
    fn fetch(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<()> {
        while !self.is_over()
            && let Some(reply) = &mut self.reply
            && out.len() < QUEUED
        {
            match ready!(Pin::new(reply).poll_frame(cx)).transpose() {
                Ok(None) => self.end(out),
                Ok(frame) => {
                    if !self.encoder.frame(frame, out) {
                        return self.break_off();
                    }
                    self.end_if_over(out);
                }
                Err(_) => return self.break_off(),
            }
        }
        Poll::Ready(())
    }

    /// Whether all of the reply is in the outbox. One that switches protocols is kept for what follows.
    fn is_over(&self) -> bool {
        self.reply.is_none() || self.then == Then::Switch
    }

    fn break_off(&mut self) -> Poll<()> {
        (self.reply, self.then) = (None, Then::BreakOff);
        Poll::Ready(())
    }

    fn end_if_over(&mut self, out: &mut Outbox) {
        let has_body = self.encoder != Encoder::None;
        if !has_body || self.reply.as_ref().is_none_or(Body::is_end_stream) {
            self.end(out);
        }
    }

    fn end(&mut self, out: &mut Outbox) {
        self.reply = None;
        if !self.encoder.frame(None, out) {
            self.then = Then::BreakOff;
        }
    }
}
