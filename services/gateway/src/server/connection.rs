//! A client's connection from its first byte to its last: the protocol that it speaks, its requests, and its end.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use hubspoke_http1::{ConnectionEnd, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client_io::{ClientIo, PREFACE};
use super::http2;
use super::swept_body::SweptBodies;
use super::tls::Handshakes;
use crate::client_conn::{ClientConn, ConnCommand};
use crate::client_socket::ClientSocket;
use crate::error::{Cause, RequestFailure};
use crate::proxy;

/// SETTINGS, and a GOAWAY with ENHANCE_YOUR_CALM (RFC 9113, 7): too many connections.
const GOAWAY: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
/// The beginning of a TLS handshake (RFC 8446, 5.1), which would otherwise be a malformed request.
const CLIENT_HELLO: &[u8] = &[0x16, 0x03];
/// How long a client may take to read the last response before its connection is closed.
const LINGER: Duration = Duration::from_secs(1);
/// On shutdown, how long a client that has connected may take to send its first bytes.
const FIRST_BYTES_GRACE: Duration = Duration::from_secs(1);

/// Serves a connection until it ends.
pub(super) async fn serve<S: ClientSocket>(mut stream: S, client: Arc<ClientConn>, bodies: Arc<SweptBodies>) {
    let first = tokio::select! {
        biased;
        first = first_bytes(&mut stream) => first,
        () = first_bytes_timeout(&client) => None,
    };
    let Some(first) = first else { return };
    if first.starts_with(PREFACE) {
        let Some(_slot) = client.connect_h2() else {
            client.gateway.refused_unread(client.ip, &Cause::TooManyConnections.into(), false);
            return close_gently(stream, GOAWAY).await;
        };
        // Boxed: most connections don't need its memory.
        Box::pin(http2::serve(ClientIo::new(stream, client.clone(), first), &client, bodies)).await;
    } else if !S::IS_TLS && first.starts_with(CLIENT_HELLO) {
        refuse(stream, &client, &RequestFailure::tls()).await;
    } else {
        http1(stream, first, &client).await;
    }
}

/// Takes the handshake, then serves the connection until it ends.
pub(super) async fn serve_tls(
    stream: TcpStream,
    handshakes: Handshakes,
    client: Arc<ClientConn>,
    bodies: Arc<SweptBodies>,
) {
    let Some(_slot) = client.connect_tls() else {
        return client.gateway.refused_unread(client.ip, &Cause::TooManyConnections.into(), false);
    };
    let is_http = tokio::select! {
        biased;
        is_http = begins_in_clear(&stream) => is_http,
        () = first_bytes_timeout(&client) => return,
    };
    if is_http {
        return refuse(stream, &client, &RequestFailure::no_tls()).await;
    }
    let socket = tokio::select! {
        biased;
        // Boxed: most of what a handshake needs is of no use afterwards.
        socket = Box::pin(handshakes.shake(stream)) => socket,
        () = first_bytes_timeout(&client) => None,
    };
    if let Some((socket, cert)) = socket {
        if let Some(cert) = cert {
            let _ = client.client_cert.set(cert); // nobody has set it before
        }
        serve(socket, client.clone(), bodies).await;
    }
}

/// Whether the client begins with the name of a method instead of a handshake. The byte stays where it is.
async fn begins_in_clear(stream: &TcpStream) -> bool {
    let mut first = [0];
    stream.peek(&mut first).await.is_ok_and(|count| count > 0) && first[0].is_ascii_uppercase()
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
async fn first_bytes(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut first = Vec::with_capacity(1024);
    loop {
        match stream.read_buf(&mut first).await {
            Ok(0) | Err(_) => return None,
            Ok(_) if first.len() < PREFACE.len() && PREFACE.starts_with(&first) => {}
            Ok(_) => return Some(first),
        }
    }
}

async fn http1<S: ClientSocket>(stream: S, first: Vec<u8>, client: &Arc<ClientConn>) {
    let (read, write) = stream.into_halves();
    let config = ServerConfig { head: client.gateway.config.limits.head(), ..ServerConfig::default() };
    let mut connection = ServerConnection::new(read, write, first.into(), &**client, config);
    let end = connection.run(|request| proxy::handle(client.clone(), request.map(S::body))).await;
    let (is_cut_off, in_head) = (connection.is_close_delimited(), connection.is_in_head());
    let (read, write) = connection.into_parts();
    let Some((read, first)) = read else {
        if is_cut_off {
            S::cut_off(write);
        }
        return;
    };
    let Some(mut stream) = S::unsplit(read, write) else { return };
    match end {
        ConnectionEnd::Closed { linger: false } if in_head => client.gateway.closed_in_head(client.ip),
        ConnectionEnd::Closed { linger: false } if S::IS_TLS && !is_cut_off => {
            // Boxed: only connections with TLS need it.
            let _ = Box::pin(tokio::time::timeout(LINGER, stream.shutdown())).await; // the client may have gone already
        }
        ConnectionEnd::Closed { linger: false } => {}
        ConnectionEnd::Closed { linger: true } => close_gently(stream, &[]).await,
        ConnectionEnd::BadRequest(error) => refuse(stream, client, &error.into()).await,
        ConnectionEnd::Timeout => {
            let is_overloaded = client.last_command() == ConnCommand::Overloaded;
            let cause = if is_overloaded { Cause::Overloaded } else { Cause::RequestTimeout };
            refuse(stream, client, &cause.into()).await;
        }
        ConnectionEnd::Upgraded(response) => {
            if let Some(tunnel) = response.into_tunnel() {
                // Boxed for the same reason.
                Box::pin(tunnel.join(stream, first, &client.gateway.memory)).await;
            }
        }
    }
}

/// Answers a request that was not parsed, and closes the connection.
pub(super) async fn refuse<S: ClientSocket>(stream: S, client: &ClientConn, failure: &RequestFailure) {
    client.gateway.refused_unread(client.ip, failure, true);
    let status = failure.cause.status();
    let body = failure.to_json();
    let retry = failure.retry_after().map(|s| format!("{RETRY_AFTER}: {s}\r\n")).unwrap_or_default();
    let allow = if status == http::StatusCode::METHOD_NOT_ALLOWED {
        format!("{ALLOW}: {}\r\n", crate::edge::ALLOW)
    } else {
        String::new()
    };
    let hsts = match &client.gateway.https {
        Some(https) if S::IS_TLS => https.policy_line(),
        _ => String::new(),
    };
    let response = format!(
        "HTTP/1.1 {} {}\r\n{CONTENT_TYPE}: {}\r\ncontent-length: {}\r\n{retry}{allow}{hsts}{}: {}\r\nconnection: close\r\n\r\n{body}",
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
async fn close_gently<S: ClientSocket>(mut stream: S, last: &[u8]) {
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
        assert!(size(serve::<TcpStream>) <= 1810, "{}", size(serve::<TcpStream>));
    }
}
