use std::future::poll_fn;

use http::Version;
use http::header::{CONTENT_LENGTH, HOST, HeaderValue};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// What a reply's head says: status, how long the body is, whether the connection lasts.
fn said(head: &str) -> Result<(u16, String, bool), String> {
    let mut bytes = Bytes::copy_from_slice(head.as_bytes());
    match head::parse(&mut bytes, false) {
        Ok(Some(head)) => {
            let body = match head.body {
                Decoder::Over => "none".to_owned(),
                Decoder::Length(length) => length.to_string(),
                Decoder::Chunked(_) => "chunked".to_owned(),
                Decoder::UntilEnd => "until the end".to_owned(),
            };
            Ok((head.response.status().as_u16(), body, head.keep_alive))
        }
        Ok(None) => Err("more".to_owned()),
        Err(error) => Err(error.to_string().rsplit(": ").next().unwrap().to_owned()),
    }
}

#[test]
fn a_heads_fields_say_how_long_the_body_is_and_whether_the_connection_lasts() {
    for (head, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", (200, "5", true)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (200, "none", true)),
        ("HTTP/1.1 200\r\ncontent-length: 5, 5\r\nContent-Length: 5\r\n\r\n", (200, "5", true)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", (200, "chunked", true)),
        ("HTTP/1.1 200 OK\r\n\r\n", (200, "until the end", false)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: Close\r\n\r\n", (200, "5", false)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, close\r\n\r\n", (200, "5", false)),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", (204, "none", true)),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", (304, "none", true)),
        ("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", (304, "none", true)),
        ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", (103, "none", true)),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", (200, "5", false)),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", (200, "5", true)),
        // Both: the chunks count (RFC 9112, 6.3), but nothing may follow.
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            (200, "chunked", false),
        ),
    ] {
        let (status, body, lasts) = expected;
        assert_eq!(said(head), Ok((status, body.to_owned(), lasts)), "{head:?}");
    }
}

#[test]
fn a_head_that_can_be_read_in_two_ways_is_refused() {
    for (head, why) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "its Content-Length is not one number",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n", "its Content-Length is not one number"),
        ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", "its Content-Length is not one number"),
        ("HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", "its Content-Length is not one number"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "its Content-Length is not one number",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "its transfer coding is not chunked"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n", "its transfer coding is not chunked"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "its transfer coding is not chunked",
        ),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0 knows no transfer codings"),
        ("HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n", "its head can't be parsed"),
        ("HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\n\r\n", "its head can't be parsed"),
        ("HTTP/1.1 099 Low\r\n\r\n", "it has no valid status"),
        ("HTTP/2.0 200 OK\r\n\r\n", "its head can't be parsed"),
        ("SSH-2.0-x\r\n\r\n", "its head can't be parsed"),
    ] {
        assert_eq!(said(head), Err(why.to_owned()), "{head:?}");
    }
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: 1\r\n".repeat(129));
    assert_eq!(said(&many), Err("its head can't be parsed".to_owned()));
    assert_eq!(said("HTTP/1.1 200 OK\r\nContent-Le"), Err("more".to_owned()));
}

#[test]
fn a_length_that_is_said_again_is_said_once_to_the_client() {
    for said in ["Content-Length: 5, 5", "Content-Length: 5\r\nContent-Length: 05"] {
        let mut bytes = Bytes::from(format!("HTTP/1.1 200 OK\r\n{said}\r\n\r\n"));
        let head = head::parse(&mut bytes, false).unwrap().unwrap();
        let lengths: Vec<_> = head.response.headers().get_all(CONTENT_LENGTH).iter().collect();
        assert_eq!(lengths, ["5"], "{said:?}");
    }
}

#[test]
fn a_reason_of_the_instances_own_is_kept() {
    let mut bytes = Bytes::from_static(b"HTTP/1.1 404 Gone Fishing\r\nContent-Length: 0\r\n\r\nrest");
    let head = head::parse(&mut bytes, false).unwrap().unwrap();
    let reason = head.response.extensions().get::<hyper::ext::ReasonPhrase>().unwrap();
    assert_eq!(reason.as_bytes(), b"Gone Fishing");
    assert_eq!(head.response.version(), Version::HTTP_11);
    assert_eq!(bytes, "rest");
}

fn headers(fields: &[(http::HeaderName, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
}

#[test]
fn a_request_is_written_as_it_is_with_the_framing_that_its_body_needs() {
    let encoded = |fields: &[(http::HeaderName, &'static str)], has_body| {
        let mut out = Vec::new();
        let path = PathAndQuery::from_static("/a?b=%2F");
        let encoder = head::encode(&mut out, &Method::POST, &path, &headers(fields), has_body);
        (String::from_utf8(out).unwrap(), encoder)
    };
    let head = "POST /a?b=%2F HTTP/1.1\r\nhost: x\r\n";
    assert_eq!(encoded(&[(HOST, "x")], false), (format!("{head}\r\n"), Encoder::None));
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
    assert_eq!(encoded(&[(HOST, "x")], true), (chunked, Encoder::Chunked));
    let with_length = format!("{head}content-length: 5\r\n\r\n");
    assert_eq!(encoded(&[(HOST, "x"), (CONTENT_LENGTH, "5")], true), (with_length, Encoder::Length(5)));
}

proptest! {
    /// No bytes make the parser do anything but refuse them, wait for more, or take a head.
    #[test]
    fn any_bytes_are_a_head_or_are_refused(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
        for start in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"] {
            let mut bytes = Bytes::from([start.as_bytes(), &tail].concat());
            if let Ok(Some(mut head)) = head::parse(&mut bytes, false) {
                while let Ok(Some(_)) = head.body.decode(&mut bytes) {}
            }
        }
    }
}

/// A connection whose other end says this, piece by piece, and then closes.
async fn instance(pieces: Vec<&'static str>, then_close: bool) -> Conn {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        if !then_close {
            // Until the other side has had enough.
            while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
        }
    });
    Conn::new(TcpStream::connect(addr).await.unwrap(), Instant::now())
}

/// Sends a request, and says what came of it: the status, and the body or why there is no end to it.
async fn ask(conn: &mut Conn, method: Method, upgrade: bool) -> Result<(u16, String), String> {
    let (path, headers) = (PathAndQuery::from_static("/"), HeaderMap::new());
    let (method, path, headers) = (&method, &path, &headers);
    conn.begin(Outbound { method, path, headers, upload: None, go_on: None, upgrade });
    let error = |error: Broken| error.to_string();
    let response = poll_fn(|cx| conn.poll_reply(cx)).await.map_err(error)?;
    let mut body = Vec::new();
    while let Some(frame) = poll_fn(|cx| conn.poll_frame(cx)).await {
        body.extend(frame.map_err(error)?.into_data().unwrap_or_default());
    }
    Ok((response.status().as_u16(), String::from_utf8(body).unwrap()))
}

#[tokio::test]
async fn a_reply_in_any_pieces_is_the_same_and_the_connection_goes_on() {
    let text = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";
    let bytewise = (0..text.len()).map(|i| &text[i..=i]).collect();
    for pieces in [vec![text], bytewise] {
        let mut conn = instance(pieces, false).await;
        assert_eq!(ask(&mut conn, Method::GET, false).await, Ok((200, "body".to_owned())));
        assert!(conn.is_over() && conn.is_reusable() && conn.is_open() && conn.is_surely_open());
        assert!(poll_fn(|cx| conn.poll_idle(cx)).await);
    }
}

#[tokio::test]
async fn a_reply_to_head_has_no_body() {
    let mut conn = instance(vec!["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"], false).await;
    assert_eq!(ask(&mut conn, Method::HEAD, false).await, Ok((200, String::new())));
    assert!(conn.is_reusable());
}

#[tokio::test]
async fn a_connection_with_more_on_it_than_the_reply_is_not_used_again() {
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbodyHTTP/1.1 200 OK\r\n\r\n";
    let mut conn = instance(vec![reply], false).await;
    assert_eq!(ask(&mut conn, Method::GET, false).await, Ok((200, "body".to_owned())));
    assert!(!conn.is_reusable());
}

#[tokio::test]
async fn an_end_within_a_reply_is_not_its_end() {
    let early = Err("the connection ended too early".to_owned());
    for reply in [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
    ] {
        let mut conn = instance(vec![reply], true).await;
        assert_eq!(ask(&mut conn, Method::GET, false).await, early, "{reply:?}");
        assert!(conn.sent() && conn.replied());
    }
    let mut conn = instance(vec!["HTTP/1.1 200 OK\r\n\r\nbody"], true).await;
    assert_eq!(ask(&mut conn, Method::GET, false).await, Ok((200, "body".to_owned())));
    assert!(!conn.is_reusable());
}

#[tokio::test]
async fn an_instance_that_never_comes_to_the_point_is_given_up() {
    let mut conn = instance(vec!["HTTP/1.1 100 Continue\r\n\r\n"; 40], false).await;
    let why = ask(&mut conn, Method::GET, false).await.unwrap_err();
    assert!(why.ends_with("it does not come to the point"), "{why}");
    let mut conn = instance(vec!["HTTP/1.1 200 OK\r\nX: ", &*"x".repeat(100_000).leak()], false).await;
    let why = ask(&mut conn, Method::GET, false).await.unwrap_err();
    assert!(why.ends_with("its head is too long"), "{why}");
}

/// Parsing it again with each byte would take minutes.
#[tokio::test]
async fn a_head_that_comes_byte_by_byte_costs_no_more_than_its_length() {
    let mut conn = instance(Vec::new(), false).await;
    let began = Instant::now();
    let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(60_000));
    let (last, before) = head.as_bytes().split_last().unwrap();
    for byte in before {
        conn.down.bytes = Bytes::copy_from_slice(&[*byte]);
        assert!(conn.next_head().unwrap().is_none());
    }
    conn.down.bytes = Bytes::copy_from_slice(&[*last]);
    assert_eq!(conn.next_head().unwrap().unwrap().status(), StatusCode::OK);
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

#[tokio::test]
async fn only_who_was_asked_to_may_switch_protocols() {
    let reply = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nfirst";
    let mut conn = instance(vec![reply], false).await;
    let why = ask(&mut conn, Method::GET, false).await.unwrap_err();
    assert!(why.ends_with("it switches protocols unasked"), "{why}");
    let mut conn = instance(vec![reply], false).await;
    assert_eq!(ask(&mut conn, Method::GET, true).await, Ok((101, String::new())));
    assert!(!conn.is_reusable());
    let (_, first) = conn.into_switched();
    assert_eq!(first, "first");
}
