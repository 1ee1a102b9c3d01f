//! A client's HTTP/2 connection: one task for the connection and one for each stream.
//!
//! On the h2 crate itself. hyper's server, which is built on it, can't send interim responses, and sends the body of a
//! response to `HEAD`.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, DATE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;

use super::client_io::ClientIo;
use super::stream_queue::{QueuedBytes, StreamQueue};
use super::swept_body::{SweptBodies, SweptBody};
use crate::client_body::ClientBody;
use crate::client_conn::{ClientConn, ConnCommand};
use crate::client_socket::ClientSocket;
use crate::error::Cause;
use crate::h2_stream::{Pings, poll_capacity, poll_reset};
use crate::memory::STREAM_WINDOW;
use crate::proxy;
use crate::proxy::response_body::ResponseBody;

/// How much a client may send ahead on a connection.
const CONNECTION_WINDOW: u32 = 256 << 10;
/// The most that h2 keeps of one response until the client's socket takes it.
const SEND_BUFFER: usize = 16 << 10;

/// Serves a connection until it ends.
pub(super) async fn serve<S: ClientSocket>(
    io: ClientIo<S>,
    client: &Arc<ClientConn>,
    bodies: Arc<SweptBodies>,
) {
    let limits = &client.gateway.config.limits;
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_size.as_u64()).unwrap_or(u32::MAX));
    let mut handshake = pin!(builder.handshake(io));
    let connected = poll_fn(|cx| match client.command(cx.waker()) {
        ConnCommand::Abort | ConnCommand::Close => Poll::Ready(None),
        _ => handshake.as_mut().poll(cx).map(Some),
    });
    let end = match connected.await {
        Some(Ok(connection)) => serve_streams(connection, client, bodies).await,
        Some(Err(error)) => Err(error),
        None => return,
    };
    if let Err(error) = end {
        // The client broke a rule of the protocol: the connection ends with a GOAWAY and without a response.
        if error.is_library() {
            client.gateway.refused_unread(client.ip, &Cause::BadFraming.into(), false);
        }
        tracing::debug!(error = &error as &dyn std::error::Error, "a client's HTTP/2 connection broke");
    }
}

async fn serve_streams<S: ClientSocket>(
    mut connection: Connection<ClientIo<S>, QueuedBytes>,
    client: &Arc<ClientConn>,
    bodies: Arc<SweptBodies>,
) -> Result<(), h2::Error> {
    let mut pings = connection.ping_pong().map(Pings::new);
    let mut draining = false;
    poll_fn(|cx| {
        let command = client.command(cx.waker());
        if command == ConnCommand::Abort {
            return Poll::Ready(Ok(()));
        }
        if command != ConnCommand::Continue && !draining {
            // Sends a GOAWAY: the client learns that the connection closes.
            draining = true;
            connection.graceful_shutdown();
        } else if command == ConnCommand::Close && client.is_idle() {
            return Poll::Ready(Ok(()));
        }
        loop {
            match connection.poll_accept(cx) {
                // Ends with its response, its stream or the worker's event loop.
                Poll::Ready(Some(Ok((request, respond)))) => {
                    tokio::spawn(serve_stream(client.clone(), bodies.clone(), request, respond));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        match &mut pings {
            Some(pings) => pings.poll_unanswered(true, cx).map(Ok),
            None => Poll::Pending,
        }
    })
    .await
}

/// Answers the request on one stream. All synchronous work is done before the future is created.
fn serve_stream(
    client: Arc<ClientConn>,
    bodies: Arc<SweptBodies>,
    request: Request<RecvStream>,
    mut respond: SendResponse<QueuedBytes>,
) -> impl Future<Output = ()> + Send {
    let head_only = *request.method() == Method::HEAD;
    let handling =
        proxy::handle(client.clone(), request.map(|body| ClientBody::h2(body, &client.gateway.memory)));
    async move {
        let mut handling = pin!(handling);
        let response = poll_fn(|cx| {
            let handled = handling.as_mut().poll(cx);
            while let Some(interim) = client.take_interim() {
                let _ = respond.send_informational(interim); // fails if the client has gone
            }
            match handled {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                // Ready if the client has cancelled the request, or has gone.
                Poll::Pending => respond.poll_reset(cx).map(|_| None),
            }
        });
        let Some(response) = response.await else { return };
        let (head, body, is_complete) = split(response, head_only);
        let sent = match respond.send_response(head, is_complete) {
            Ok(stream) if !is_complete => {
                let queue = StreamQueue::new(&client.gateway);
                send_body(bodies.add(body, &client.gateway), stream, &queue).await
            }
            other => other.map(drop),
        };
        if let Err(error) = sent {
            tracing::debug!(error = &error as &dyn std::error::Error, "a response on a stream broke off");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

/// The head of a response, its body, and whether the head is all of it.
fn split(response: Response<ResponseBody>, head_only: bool) -> (Response<()>, ResponseBody, bool) {
    let (mut head, body) = response.into_parts();
    head.version = Version::HTTP_2;
    let has_no_body = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if head.status == StatusCode::NO_CONTENT {
        head.headers.remove(CONTENT_LENGTH);
    } else if !has_no_body
        && !head.headers.contains_key(CONTENT_LENGTH)
        && let Some(length) = body.size_hint().exact()
        // The response to HEAD may be complete already; its length is that of GET, which is unknown.
        && (length > 0 || !head_only)
    {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if !head.headers.contains_key(DATE)
        && let Ok(date) = HeaderValue::from_bytes(&hubspoke_http1::date_value())
    {
        head.headers.insert(DATE, date);
    }
    let is_complete = head_only || has_no_body || body.is_end_stream();
    (Response::from_parts(head, ()), body, is_complete)
}

/// Sends a body as the windows of the stream and its connection allow.
async fn send_body(
    mut body: SweptBody,
    mut stream: SendStream<QueuedBytes>,
    queue: &Arc<StreamQueue>,
) -> Result<(), h2::Error> {
    loop {
        let frame = poll_fn(|cx| match poll_reset(&mut stream, cx) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending if queue.poll_room(cx).is_pending() => Poll::Pending,
            Poll::Pending => Pin::new(&mut body).poll_frame(cx).map(Ok),
        });
        let frame = match frame.await? {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a response on a stream broke off");
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
            None => return stream.send_data(queue.push(Bytes::new()), true),
        };
        match frame.into_data() {
            Ok(mut data) => {
                let is_last = body.is_end_stream();
                if data.is_empty() && is_last {
                    return stream.send_data(queue.push(data), true);
                }
                while !data.is_empty() {
                    queue.set_waiting(data.len());
                    let capacity = poll_fn(|cx| poll_capacity(&mut stream, data.len(), cx)).await?;
                    let part = data.split_to(capacity.min(data.len()));
                    stream.send_data(queue.push(part), is_last && data.is_empty())?;
                }
                queue.set_waiting(0);
                if is_last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return stream.send_trailers(trailers);
                }
            }
        }
    }
}
