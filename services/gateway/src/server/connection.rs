//! A client's connection from its first byte to its last: the protocol that it speaks, its requests, and its end.

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use hubspoke_http1::{ConnectionEnd, ServerConfig, ServerConnection};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client_io::ClientIo;
use super::swept_body::SweptBodies;
use crate::client_body::ClientBody;
use crate::client_conn::{ClientConn, ConnCommand};
use crate::error::{Cause, RequestFailure};
use crate::proxy;

/// The beginning of an HTTP/2 connection (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The beginning of a TLS handshake (RFC 8446, 5.1), which would otherwise be a malformed request.
const CLIENT_HELLO: &[u8] = &[0x16, 0x03];
/// How long a client may take to read the last response before its connection is closed.
const LINGER: Duration = Duration::from_secs(1);
/// On shutdown, how long a client that has connected may take to send its first bytes.
const FIRST_BYTES_GRACE: Duration = Duration::from_secs(1);
/// An HTTP/2 client is pinged this often, and disconnected if an answer takes longer than `PING_TIMEOUT`.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a connection until it ends.
pub(super) async fn serve(mut stream: TcpStream, client: Arc<ClientConn>, bodies: Arc<SweptBodies>) {
    let _ = stream.set_nodelay(true); // fails only on a dead socket
    let first = tokio::select! {
        biased;
        first = first_bytes(&mut stream) => first,
        () = first_bytes_timeout(&client) => None,
    };
    let Some(first) = first else { return };
    if first.starts_with(PREFACE) {
        // Boxed: most connections don't need its memory.
        Box::pin(http2(ClientIo::new(stream, client.clone(), first), &client, bodies)).await;
    } else if first.starts_with(CLIENT_HELLO) {
        refuse(stream, &client, &RequestFailure::tls()).await;
    } else {
        http1(stream, first, &client).await;
    }
}

/// Completes when the connection must not wait for its first bytes any longer. On shutdown it still waits for a moment:
/// the client may have sent a request already.
async fn first_bytes_timeout(client: &ClientConn) {
    let command = poll_fn(|cx| match client.command(cx.waker()) {
        ConnCommand::Continue => Poll::Pending,
        command => Poll::Ready(command),
    });
    if command.await == ConnCommand::Drain {
        tokio::time::sleep(FIRST_BYTES_GRACE).await;
    }
}

/// Reads until it is clear whether this is HTTP/2. `None` if the client has closed the connection.
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
    let (read, write) = stream.into_split();
    let config = ServerConfig { head: client.gateway.config.limits.head(), ..ServerConfig::default() };
    let mut connection = ServerConnection::new(read, write, first.into(), &**client, config);
    let end = connection.run(|request| proxy::handle(client.clone(), request.map(ClientBody::H1))).await;
    let (is_cut_off, in_head) = (connection.is_close_delimited(), connection.is_in_head());
    let (read, write) = connection.into_parts();
    let Some((read, first)) = read else {
        if is_cut_off {
            write.forget(); // or its FIN would make the response look complete
        }
        return;
    };
    let Ok(stream) = read.reunite(write) else { return };
    match end {
        ConnectionEnd::Closed { linger: false } if in_head => client.gateway.closed_in_head(client.ip),
        ConnectionEnd::Closed { linger: false } => {}
        ConnectionEnd::Closed { linger: true } => close_gently(stream, &[]).await,
        ConnectionEnd::BadRequest(error) => refuse(stream, client, &error.into()).await,
        ConnectionEnd::Timeout => refuse(stream, client, &Cause::RequestTimeout.into()).await,
        ConnectionEnd::Upgraded(response) => {
            if let Some(tunnel) = response.into_tunnel() {
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
            let response = proxy::handle(client.clone(), request.map(ClientBody::H2)).await;
            Ok::<_, Infallible>(response.map(|response| bodies.add(response, &client.gateway)))
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
                // Sends a GOAWAY: the client learns that the connection closes.
                draining = true;
                connection.as_mut().graceful_shutdown();
                ended = connection.as_mut().poll(cx);
            } else if command == ConnCommand::Close && client.is_idle() {
                return Poll::Ready(());
            }
        }
        ended.map(|end| log_end(end, client))
    })
    .await;
}

fn log_end(result: Result<(), hyper::Error>, client: &ClientConn) {
    if let Err(error) = result {
        // The client broke a rule of the protocol: the connection ends with a GOAWAY and without a response.
        if error.source().and_then(|error| error.downcast_ref()).is_some_and(h2::Error::is_library) {
            client.gateway.refused_unread(client.ip, &Cause::BadFraming.into(), false);
        }
        tracing::debug!(error = &error as &dyn std::error::Error, "a client's HTTP/2 connection broke");
    }
}

/// Answers a request that was not parsed, and closes the connection.
pub(super) async fn refuse(stream: TcpStream, client: &ClientConn, failure: &RequestFailure) {
    client.gateway.refused_unread(client.ip, failure, true);
    let status = failure.cause.status();
    let body = failure.to_json();
    let retry = failure.retry_after().map(|s| format!("{RETRY_AFTER}: {s}\r\n")).unwrap_or_default();
    let allow = if status == http::StatusCode::METHOD_NOT_ALLOWED {
        format!("{ALLOW}: {}\r\n", crate::edge::ALLOW)
    } else {
        String::new()
    };
    let response = format!(
        "HTTP/1.1 {} {}\r\n{CONTENT_TYPE}: {}\r\ncontent-length: {}\r\n{retry}{allow}{}: {}\r\nconnection: close\r\n\r\n{body}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        hubspoke_protocol::problem::PROBLEM_JSON,
        body.len(),
        hubspoke_protocol::HUB_INSTANCE,
        client.gateway.id.to_str().unwrap_or_default(),
    );
    close_gently(stream, response.as_bytes()).await;
}

/// Writes the last response, and closes the connection. What the client still sends is read for a moment: a reset would
/// make it lose the response.
async fn close_gently(mut stream: TcpStream, last: &[u8]) {
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
    // Boxed: most connections end otherwise.
    let _ = tokio::time::timeout(LINGER, Box::pin(lingering)).await; // the client may have gone already
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F>(_: impl FnOnce(TcpStream, Arc<ClientConn>, Arc<SweptBodies>) -> F) -> usize {
        size_of::<F>()
    }

    /// Untouched memory causes no cache misses: with many connections, the size of their tasks costs time.
    #[test]
    fn the_task_of_a_connection_is_small() {
        assert!(size(serve) <= 1800, "{}", size(serve));
    }
}
