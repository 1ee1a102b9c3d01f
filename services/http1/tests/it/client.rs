//! The client's connection: responses, and whether another request may follow.

use std::error::Error;
use std::future::poll_fn;
use std::time::Instant;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::Empty;
use hubspoke_http1::{ClientConnection, ClientError, ClientRequest};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

use crate::targets::Wire;

type Connection<S> = ClientConnection<S, Empty<Bytes>>;

/// A connection to a server that reads a request, writes these pieces, and then closes the connection or waits.
fn server(pieces: Vec<&'static str>, then_close: bool) -> Connection<DuplexStream> {
    let (client, mut stream) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        if !then_close {
            // Until the client closes it.
            while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
        }
    });
    ClientConnection::new(client)
}

/// Sends a request. Returns the response's status and body, or the error with its cause.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    conn: &mut Connection<S>,
    method: Method,
    upgrade: bool,
) -> Result<(u16, String), String> {
    let (path, headers) = (PathAndQuery::from_static("/"), HeaderMap::new());
    let (method, path, headers) = (&method, &path, &headers);
    conn.begin(ClientRequest { method, path, headers, body: None, on_continue: None, upgrade });
    let describe = |error: ClientError| match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    let mut response = poll_fn(|cx| conn.poll_response(cx)).await.map_err(describe)?;
    while response.status().is_informational() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response = poll_fn(|cx| conn.poll_response(cx)).await.map_err(describe)?;
    }
    let mut body = Vec::new();
    while let Some(frame) = poll_fn(|cx| conn.poll_frame(cx)).await {
        body.extend(frame.map_err(describe)?.into_data().unwrap_or_default());
    }
    Ok((response.status().as_u16(), String::from_utf8(body).unwrap()))
}

#[tokio::test]
async fn a_response_in_any_pieces_is_the_same_and_the_connection_persists() {
    let text = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";
    let bytewise = (0..text.len()).map(|i| &text[i..=i]).collect();
    for pieces in [vec![text], bytewise] {
        let mut conn = server(pieces, false);
        assert_eq!(exchange(&mut conn, Method::GET, false).await, Ok((200, "body".to_owned())));
        assert!(conn.is_end_stream() && conn.is_reusable());
        assert!(poll_fn(|cx| conn.poll_idle(cx)).await);
    }
}

#[tokio::test]
async fn interim_responses_come_one_by_one_before_the_final_one() {
    let text = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n\
                HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let mut conn = server(vec![text], false);
    let (method, path, headers) = (&Method::GET, &PathAndQuery::from_static("/"), &HeaderMap::new());
    conn.begin(ClientRequest { method, path, headers, body: None, on_continue: None, upgrade: false });
    let mut seen = Vec::new();
    while seen.last() != Some(&200) {
        let response = poll_fn(|cx| conn.poll_response(cx)).await.unwrap();
        seen.push(response.status().as_u16());
        assert_eq!(response.headers().contains_key("link"), seen.last() == Some(&103));
    }
    assert_eq!(seen, [102, 103, 200]);
    assert!(conn.is_reusable());
}

/// What has only one reading (RFC 9112, 4, 5.1 and 7.1.1) is accepted of a server that is trusted with its response.
#[tokio::test]
async fn unusual_chunks_of_a_response_are_read() {
    for body in [
        "4 ;x=1\r\nbody\r\n0\r\n\r\n",
        "4\t;x\r\nbody\r\n0 \r\n\r\n",
        "4 \t \r\nbody\r\n0\r\n\r\n",
        "4;\"a; b\"=c;d=\"\\\"\"\r\nbody\r\n0;last\r\n\r\n",
        "00000000000000000000004\r\nbody\r\n0000000000000000000000\r\n\r\n",
        "2\r\nbo\r\n2   \r\ndy\r\n0\r\nX-Sum: 1 \r\n\r\n",
        "4\nbody\n0\n\n",
        "4\r\nbody\n0\r\nX-Sum: 1\n\n",
    ] {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding : \tChunked\t\r\n\r\n";
        let text: &str = format!("{head}{body}").leak();
        let bytewise = (0..text.len()).map(|i| &text[i..=i]).collect();
        for pieces in [vec![text], bytewise] {
            let mut conn = server(pieces, false);
            assert_eq!(
                exchange(&mut conn, Method::GET, false).await,
                Ok((200, "body".to_owned())),
                "{body:?}"
            );
            assert!(conn.is_reusable(), "{body:?}");
        }
    }
    for body in
        ["4 4\r\nbody", "4,\r\nbody", " 4\r\nbody", "4;a\nbody", "+4\r\nbody", "0x4\r\nbody", "\r\nbody"]
    {
        let text: &str =
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}\r\n0\r\n\r\n").leak();
        let mut conn = server(vec![text], false);
        assert!(exchange(&mut conn, Method::GET, false).await.is_err(), "{body:?}");
    }
}

#[tokio::test]
async fn a_response_to_head_has_no_body() {
    let mut conn = server(vec!["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"], false);
    assert_eq!(exchange(&mut conn, Method::HEAD, false).await, Ok((200, String::new())));
    assert!(conn.is_reusable());
}

#[tokio::test]
async fn a_connection_with_more_on_it_than_the_response_is_not_used_again() {
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbodyHTTP/1.1 200 OK\r\n\r\n";
    let mut conn = server(vec![response], false);
    assert_eq!(exchange(&mut conn, Method::GET, false).await, Ok((200, "body".to_owned())));
    assert!(!conn.is_reusable());
}

#[tokio::test]
async fn the_end_of_the_connection_is_not_the_end_of_a_response_with_a_length() {
    let early = Err("the connection ended too early".to_owned());
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
    ] {
        let mut conn = server(vec![response], true);
        assert_eq!(exchange(&mut conn, Method::GET, false).await, early, "{response:?}");
        assert!(conn.has_sent() && conn.has_received());
    }
    let mut conn = server(vec!["HTTP/1.1 200 OK\r\n\r\nbody"], true);
    assert_eq!(exchange(&mut conn, Method::GET, false).await, Ok((200, "body".to_owned())));
    assert!(!conn.is_reusable());
}

#[tokio::test]
async fn a_server_that_never_sends_a_final_response_is_given_up() {
    let mut conn = server(vec!["HTTP/1.1 100 Continue\r\n\r\n"; 40], false);
    let why = exchange(&mut conn, Method::GET, false).await.unwrap_err();
    assert!(why.ends_with("too many interim (1xx) responses"), "{why}");
    let large: &str = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(30_000)).leak();
    let mut conn = server(vec![large; 3], false);
    let why = exchange(&mut conn, Method::GET, false).await.unwrap_err();
    assert!(why.ends_with("too many interim (1xx) responses"), "{why}");
    let mut conn = server(vec!["HTTP/1.1 200 OK\r\nX: ", &*"x".repeat(100_000).leak()], false);
    let why = exchange(&mut conn, Method::GET, false).await.unwrap_err();
    assert!(why.ends_with("the head is too large"), "{why}");
}

/// Parsing it again with each byte would take minutes.
#[tokio::test]
async fn a_head_that_arrives_byte_by_byte_costs_no_more_than_its_length() {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: {}\r\n\r\n", "x".repeat(60_000));
    let bytes: Vec<&[u8]> = head.as_bytes().chunks(1).collect();
    let mut conn = ClientConnection::new(Wire::new(&bytes));
    let began = Instant::now();
    assert_eq!(exchange(&mut conn, Method::GET, false).await, Ok((200, String::new())));
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

#[tokio::test]
async fn only_a_server_that_was_asked_to_may_switch_protocols() {
    let response = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nfirst";
    let mut conn = server(vec![response], false);
    let why = exchange(&mut conn, Method::GET, false).await.unwrap_err();
    assert!(why.ends_with("101 Switching Protocols was not asked for"), "{why}");
    let mut conn = server(vec![response], false);
    assert_eq!(exchange(&mut conn, Method::GET, true).await, Ok((101, String::new())));
    assert!(!conn.is_reusable());
    let (_, first) = conn.into_parts();
    assert_eq!(first, "first");
}
