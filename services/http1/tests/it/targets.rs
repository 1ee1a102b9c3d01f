//! Fuzz targets. Each compares the engine with the [`reference`](crate::reference) parser on any bytes, and panics if
//! they differ. `fuzz/` runs them for as long as one likes, `properties.rs` runs them briefly.
//!
//! An input is a line with the sizes of the pieces in which the bytes arrive, again and again (`3 7`; nothing is all at
//! once), and then the bytes.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Empty, Full};
use hubspoke_http1::{
    BodyDecoder, ClientConnection, ClientRequest, ConnectionEnd, HeadLimits, RequestBody, RequestHead,
    RequestHeadReader, ServerConfig, ServerConnection,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::reference::{self, Field};

/// Splits an input into the pieces that arrive, and all bytes.
pub(crate) fn input(data: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let line = data.iter().position(|&b| b == b'\n').unwrap_or(data.len());
    let (sizes, bytes) = (&data[..line], data.get(line + 1..).unwrap_or_default());
    let sizes: Vec<usize> = String::from_utf8_lossy(sizes)
        .split_ascii_whitespace()
        .filter_map(|size| size.parse().ok().filter(|size| *size > 0))
        .collect();
    let mut sizes = sizes.into_iter().cycle();
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(usize::MAX).min(rest.len());
        let (piece, after) = rest.split_at(size);
        pieces.push(piece);
        rest = after;
    }
    (pieces, bytes)
}

/// Heads and bodies of a pipeline: the requests are the reference's and end where it says, up to the first one that the
/// engine refuses.
pub fn request_head(data: &[u8]) {
    let (pieces, bytes) = input(data);
    let (expected, _) = reference::requests(bytes);
    let limits = HeadLimits { size: 4096, fields: 32, target: 1024 };
    let mut heads = RequestHeadReader::new(limits);
    let mut requests = Vec::new();
    // The request whose body is being read.
    let mut current: Option<(RequestHead, Vec<u8>, HeaderMap)> = None;
    let (mut is_refused, mut taken) = (false, 0);
    for piece in pieces {
        let mut rest = Bytes::copy_from_slice(piece);
        taken += piece.len();
        while !is_refused {
            let Some((head, content, trailers)) = &mut current else {
                match heads.read(&mut rest) {
                    Ok(Some(head)) => current = Some((head, Vec::new(), HeaderMap::new())),
                    Ok(None) => break,
                    Err(_) => is_refused = true,
                }
                continue;
            };
            match head.body.decode(&mut rest) {
                Ok(Some(frame)) => match frame.into_data() {
                    Ok(data) => content.extend_from_slice(&data),
                    Err(frame) => *trailers = frame.into_trailers().unwrap(),
                },
                Ok(None) if head.body.is_done() => {
                    requests.extend(current.take().map(|request| (request, taken - rest.len())));
                }
                Ok(None) => break,
                Err(_) => is_refused = true,
            }
        }
    }
    for (((head, content, trailers), end), expected) in requests.iter().zip(&expected) {
        same_request(head, expected);
        assert_eq!((content, *end), (&expected.message.content, expected.end));
        same_fields(trailers, &expected.message.trailers);
    }
    let (read, there) = (requests.len(), expected.len());
    assert!(
        read == there || (read < there && is_refused),
        "{read} requests were read, and {there} are there"
    );
}

fn same_request(head: &RequestHead, expected: &reference::Request) {
    assert_eq!(head.parts.method.as_str().as_bytes(), expected.method);
    if expected.target.starts_with(b"/") {
        let target = head.parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
        assert_eq!(target.as_bytes(), expected.target);
    }
    assert_eq!(head.keep_alive, expected.message.persists);
    same_fields(&head.parts.headers, &expected.message.fields);
}

/// The same fields with the same values in the same order, except for those that concern only the connection.
fn same_fields(headers: &HeaderMap, expected: &[Field]) {
    let expected = expected.iter().filter(|(name, _)| name != b"connection");
    let mut count = 0;
    for name in headers.keys().filter(|name| *name != header::CONNECTION) {
        let ours: Vec<&[u8]> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
        let theirs = expected.clone().filter(|(other, _)| other == name.as_str().as_bytes());
        let theirs: Vec<&[u8]> = theirs.map(|(_, value)| &value[..]).collect();
        assert_eq!(ours, theirs, "{name}");
        count += ours.len();
    }
    assert_eq!(count, expected.count(), "a field is missing");
}

/// A response as a client reads it, to `GET` and to `HEAD`: head, content and end are the reference's, or it is refused.
pub fn response_head(data: &[u8]) {
    let (pieces, bytes) = input(data);
    for method in [Method::GET, Method::HEAD] {
        let expected = reference::response(bytes, method == Method::HEAD);
        let mut client = ClientConnection::<_, Empty<Bytes>>::new(Wire::new(&pieces));
        let (path, headers) = (&PathAndQuery::from_static("/"), &HeaderMap::new());
        let (method, body, on_continue, upgrade) = (&method, None, None, false);
        client.begin(ClientRequest { method, path, headers, body, on_continue, upgrade });
        let response = loop {
            match now(poll_fn(|cx| client.poll_response(cx))) {
                Ok(response) if response.status().is_informational() => {} // the reference skips those
                other => break other,
            }
        };
        let Ok(response) = response else { continue };
        let mut content = Vec::new();
        let mut trailers = HeaderMap::new();
        let is_whole = loop {
            match now(poll_fn(|cx| client.poll_frame(cx))) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => content.extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().unwrap(),
                },
                Some(Err(_)) => break false,
                None => break true,
            }
        };
        if !is_whole {
            continue;
        }
        let expected = expected.expect("the client reads what the reference does not");
        assert_eq!(response.status().as_u16(), expected.status);
        assert_eq!(content, expected.message.content);
        same_fields(&trailers, &expected.message.trailers);
        assert!(!client.is_reusable() || (expected.message.persists && expected.end.is_some()));
        let mut headers = response.into_parts().0.headers;
        let mut fields = expected.message.fields;
        if headers.remove(header::CONTENT_LENGTH).is_some() {
            fields.retain(|(name, _)| name != b"content-length"); // repeated ones are joined
        }
        same_fields(&headers, &fields);
    }
}

/// A chunked body of a request and of a response: content, trailers and end are the reference's, or it is refused.
pub fn chunked_body(data: &[u8]) {
    chunked_body_of(data, BodyDecoder::chunked(), false);
    chunked_body_of(data, BodyDecoder::chunked_response(), true);
}

fn chunked_body_of(data: &[u8], mut body: BodyDecoder, is_response: bool) {
    let (pieces, bytes) = input(data);
    let (mut content, mut trailers, mut taken) = (Vec::new(), HeaderMap::new(), 0);
    for piece in pieces {
        let mut rest = Bytes::copy_from_slice(piece);
        loop {
            match body.decode(&mut rest) {
                Ok(Some(frame)) => match frame.into_data() {
                    Ok(data) => content.extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().unwrap(),
                },
                Ok(None) => break,
                Err(_) => return,
            }
        }
        taken += piece.len() - rest.len();
        if body.is_done() {
            break;
        }
        assert!(rest.is_empty(), "bytes are left, and the body is not over");
    }
    let expected = reference::chunked_body(bytes, is_response);
    if !body.is_done() {
        // The engine reads each byte as it comes, so it may wait for more of a trailer that is invalid already.
        assert!(expected.is_err(), "the body is over, and the engine waits for more");
        return;
    }
    let (expected_content, expected_trailers, end) = expected.expect("the reference refuses the body");
    assert_eq!((content, taken), (expected_content, end));
    same_fields(&trailers, &expected_trailers);
}

/// A server's connection that echoes bodies: it serves the reference's requests, up to the first that it refuses or that
/// is the last on its connection, and the reference reads its responses.
pub fn exchange(data: &[u8]) {
    let (pieces, bytes) = input(data);
    let (expected, _) = reference::requests(bytes);
    let wire = Wire::new(&pieces);
    let served = std::cell::RefCell::new(Vec::new());
    let mut connection = ServerConnection::new(wire, Vec::new(), Bytes::new(), (), ServerConfig::default());
    let echo = async |request: Request<RequestBody<Wire<'_>>>| {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.ok().map(|body| body.to_bytes());
        let response = Response::new(Full::new(body.clone().unwrap_or_default()));
        served.borrow_mut().push((parts, body));
        response
    };
    let end = now(connection.run(echo));
    let (_, written) = connection.into_parts();
    let served = served.into_inner();
    let whole = served.iter().take_while(|(_, body)| body.is_some()).count();
    assert!(whole + 1 >= served.len(), "a request was read after one that broke off");
    for ((parts, body), expected) in served.iter().zip(&expected) {
        assert_eq!(parts.method.as_str().as_bytes(), expected.method);
        if let Some(body) = body {
            assert_eq!(*body, expected.message.content);
        }
    }
    assert!(whole <= expected.len(), "a request that the reference does not read");
    // Which of them must have been served.
    let last = expected.iter().position(|request| !request.message.persists);
    let is_refused = matches!(end, ConnectionEnd::BadRequest(_)) || whole < served.len();
    if !is_refused {
        assert_eq!(whole, last.map_or(expected.len(), |last| last + 1), "{end:?}");
    }
    let mut rest = &written[..];
    for (parts, body) in &served[..whole] {
        let response = reference::response(rest, parts.method == Method::HEAD).expect("a response");
        let body = body.clone().unwrap_or_default();
        let has_body = parts.method != Method::HEAD;
        assert_eq!(response.message.content, if has_body { &body[..] } else { b"" });
        rest = &rest[response.end.unwrap_or(rest.len())..];
    }
}

/// A stream from which pieces are read, and then its end. Writes are discarded.
pub(crate) struct Wire<'a> {
    pieces: VecDeque<&'a [u8]>,
    piece: &'a [u8],
}

impl<'a> Wire<'a> {
    pub(crate) fn new(pieces: &[&'a [u8]]) -> Self {
        Self { pieces: pieces.iter().copied().collect(), piece: b"" }
    }
}

impl AsyncRead for Wire<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.piece.is_empty() {
            self.piece = self.pieces.pop_front().unwrap_or_default();
        }
        let (taken, rest) = self.piece.split_at(self.piece.len().min(buf.remaining()));
        buf.put_slice(taken);
        self.piece = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The output of a future that has nothing to wait for.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..1000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
    panic!("it waits for something that never comes");
}
