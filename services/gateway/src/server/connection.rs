//! One client's connection from its first byte to its last: which protocol it speaks, its requests, and how it ends.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client_io::ClientIo;
use super::h1::{self, End};
use super::swept_body::SweptBodies;
use crate::client_conn::{ClientConn, ConnCommand};
use crate::error::Failure;
use crate::proxy;
use crate::proxy::client_body::ClientBody;

/// What an HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A client that is told why its connection ends has this long to read it.
const LINGER: Duration = Duration::from_secs(1);
/// At a stop, a client that has connected has this long to send its first bytes.
const LAST_CALL: Duration = Duration::from_secs(1);
/// How often an HTTP/2 client is asked whether it still lives, and how long it may take.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a connection until it ends.
pub(super) async fn serve(mut stream: TcpStream, client: Arc<ClientConn>, bodies: Arc<SweptBodies>) {
    let _ = stream.set_nodelay(true); // refused only on a dead socket
    let first = tokio::select! {
        biased;
        first = first_bytes(&mut stream) => first,
        () = patience_over(&client) => None,
    };
    let Some(first) = first else { return };
    if first.starts_with(PREFACE) {
        // Boxed, since most connections don't need the room that it takes.
        Box::pin(http2(ClientIo::new(stream, client.clone(), first), &client, bodies)).await;
    } else {
        http1(stream, first, &client).await;
    }
}

/// Done when the first bytes are not waited for any longer. At a stop they are, for a moment: the client may have sent
/// them already, and can't know that nobody has read them.
async fn patience_over(client: &ClientConn) {
    let command = poll_fn(|cx| match client.command(cx.waker()) {
        ConnCommand::Continue => Poll::Pending,
        order => Poll::Ready(order),
    });
    if command.await == ConnCommand::Drain {
        tokio::time::sleep(LAST_CALL).await;
    }
}

/// Reads until it is clear whether this is HTTP/2. `None` where the client has gone.
async fn first_bytes(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut first = Vec::with_capacity(1024);
    loop {
        match stream.read_buf(&mut first).await {
            Ok(0) | Err(_) => return None,
            Ok(_) if first.len() < PREFACE.len() && PREFACE.starts_with(&first) => {}
            Ok(_) => return Some(first),
        }
    }
}

async fn http1(stream: TcpStream, first: Vec<u8>, client: &Arc<ClientConn>) {
    let mut connection = h1::Connection::new(stream, client.clone(), first);
    let end = connection.run().await;
    let Some((stream, first)) = connection.into_stream() else { return };
    match end {
        End::Closed { linger: false } => {}
        End::Closed { linger: true } => end_gently(stream, &[]).await,
        End::Refused(failure) => {
            client.gateway.refused(failure.cause);
            refuse(stream, client, &failure).await;
        }
        End::Upgraded(reply) => {
            if let Some(tunnel) = reply.into_tunnel() {
                tunnel.join(stream, first).await;
            }
        }
    }
}

async fn http2(io: ClientIo, client: &Arc<ClientConn>, bodies: Arc<SweptBodies>) {
    let config = &client.gateway.config;
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(config.limits.streams)
        .max_header_list_size(u32::try_from(config.limits.header_size.as_u64()).unwrap_or(u32::MAX));
    let service = service_fn(|request| {
        let (client, bodies) = (client.clone(), bodies.clone());
        async move {
            let reply = proxy::handle(client.clone(), request.map(ClientBody::H2)).await;
            Ok::<_, Infallible>(reply.map(|reply| bodies.add(reply, &client.gateway)))
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut draining = false;
    poll_fn(|cx| {
        let command = client.command(cx.waker());
        if command == ConnCommand::Abort {
            return Poll::Ready(());
        }
        let mut ended = connection.as_mut().poll(cx);
        if ended.is_pending() && command != ConnCommand::Continue {
            if !draining {
                // What is idle for too long is told so, by GOAWAY, before it is closed.
                draining = true;
                connection.as_mut().graceful_shutdown();
                ended = connection.as_mut().poll(cx);
            } else if command == ConnCommand::Close && client.is_idle() {
                return Poll::Ready(());
            }
        }
        ended.map(ended_with)
    })
    .await;
}

fn ended_with(result: Result<(), hyper::Error>) {
    if let Err(error) = result {
        tracing::debug!(error = &error as &dyn std::error::Error, "a client's connection broke");
    }
}

/// Answers a request that was never parsed, and closes.
pub(super) async fn refuse(stream: TcpStream, client: &ClientConn, failure: &Failure) {
    let status = failure.cause.status();
    let body = failure.to_json();
    let retry = failure.retry_after().map(|s| format!("{RETRY_AFTER}: {s}\r\n")).unwrap_or_default();
    let allow = if status == http::StatusCode::METHOD_NOT_ALLOWED {
        format!("{ALLOW}: {}\r\n", crate::edge::ALLOW)
    } else {
        String::new()
    };
    let reply = format!(
        "HTTP/1.1 {} {}\r\n{CONTENT_TYPE}: {}\r\ncontent-length: {}\r\n{retry}{allow}{}: {}\r\nconnection: close\r\n\r\n{body}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        hubspoke_protocol::problem::PROBLEM_JSON,
        body.len(),
        hubspoke_protocol::HUB_INSTANCE,
        client.gateway.id.to_str().unwrap_or_default(),
    );
    end_gently(stream, reply.as_bytes()).await;
}

/// Says the last words, and closes. A client that is still sending would lose them to a reset: what it sends is read for
/// a moment.
async fn end_gently(mut stream: TcpStream, last: &[u8]) {
    let lingering = async {
        stream.write_all(last).await?;
        stream.shutdown().await?;
        let mut sink = [0; 1024];
        for _ in 0..1024 {
            if stream.read(&mut sink).await? == 0 {
                break;
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // Boxed, since most connections end otherwise.
    let _ = tokio::time::timeout(LINGER, Box::pin(lingering)).await; // the client may be gone already
}
