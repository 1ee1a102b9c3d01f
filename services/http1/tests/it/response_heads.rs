//! Response heads: which are read, and which are refused.

use bytes::Bytes;
use http::Version;
use http::header::CONTENT_LENGTH;
use proptest::prelude::*;

use hubspoke_http1::{BodyDecoder, ReasonPhrase, ResponseHead};

/// The status, the length of the body, and whether the connection persists.
fn parsed(head: &str) -> Result<(u16, String, bool), String> {
    let mut bytes = Bytes::copy_from_slice(head.as_bytes());
    match ResponseHead::parse(&mut bytes, false) {
        Ok(Some(head)) => {
            let body = match head.body {
                BodyDecoder::Done => "none".to_owned(),
                BodyDecoder::Length(length) => length.to_string(),
                BodyDecoder::Chunked(_) => "chunked".to_owned(),
                BodyDecoder::CloseDelimited => "until the end".to_owned(),
            };
            Ok((head.response.status().as_u16(), body, head.keep_alive))
        }
        Ok(None) => Err("more".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn fields_tell_how_long_the_body_is_and_whether_the_connection_persists() {
    for (head, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", (200, "5", true)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (200, "none", true)),
        ("HTTP/1.1 200\r\ncontent-length: 5, 5\r\nContent-Length: 5\r\n\r\n", (200, "5", true)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", (200, "chunked", true)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding:\t, chunked ,\r\n\r\n", (200, "chunked", true)),
        ("HTTP/1.1 200 OK\r\nContent-Length : \t5\t \r\n\r\n", (200, "5", true)),
        ("HTTP/1.1  200   OK\r\nContent-Length: 5\r\n\r\n", (200, "5", true)),
        ("HTTP/1.1 200 OK\r\n\r\n", (200, "until the end", false)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: Close\r\n\r\n", (200, "5", false)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, close\r\n\r\n", (200, "5", false)),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", (204, "none", true)),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", (304, "none", true)),
        ("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", (304, "none", true)),
        ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", (103, "none", true)),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", (200, "5", false)),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", (200, "5", true)),
        // Both: the chunks count (RFC 9112, 6.3), but no response may follow.
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            (200, "chunked", false),
        ),
    ] {
        let (status, body, persists) = expected;
        assert_eq!(parsed(head), Ok((status, body.to_owned(), persists)), "{head:?}");
    }
}

#[test]
fn a_head_that_can_be_read_in_two_ways_is_refused() {
    for (head, why) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "the Content-Length is not a single number",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n", "the Content-Length is not a single number"),
        ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", "the Content-Length is not a single number"),
        ("HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", "the Content-Length is not a single number"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "the Content-Length is not a single number",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "the transfer coding is not chunked"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n", "the transfer coding is not chunked"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "the transfer coding is not chunked",
        ),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0 has no Transfer-Encoding"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: ,\r\n\r\n", "the transfer coding is not chunked"),
        ("HTTP/1.1 200 OK\r\n : 5\r\n\r\n", "the head is malformed"),
        ("HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\n\r\n", "the head is malformed"),
        ("HTTP/1.1 099 Low\r\n\r\n", "the status is invalid"),
        ("HTTP/2.0 200 OK\r\n\r\n", "the head is malformed"),
        ("SSH-2.0-x\r\n\r\n", "the head is malformed"),
    ] {
        assert_eq!(parsed(head), Err(why.to_owned()), "{head:?}");
    }
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: 1\r\n".repeat(129));
    assert_eq!(parsed(&many), Err("the head is malformed".to_owned()));
    assert_eq!(parsed("HTTP/1.1 200 OK\r\nContent-Le"), Err("more".to_owned()));
}

#[test]
fn a_repeated_length_is_passed_on_once() {
    for fields in ["Content-Length: 5, 5", "Content-Length: 5\r\nContent-Length: 05"] {
        let mut bytes = Bytes::from(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"));
        let head = ResponseHead::parse(&mut bytes, false).unwrap().unwrap();
        let lengths: Vec<_> = head.response.headers().get_all(CONTENT_LENGTH).iter().collect();
        assert_eq!(lengths, ["5"], "{fields:?}");
    }
}

#[test]
fn a_reason_phrase_that_is_not_the_standard_one_is_kept() {
    let mut bytes = Bytes::from_static(b"HTTP/1.1 404 Gone Fishing\r\nContent-Length: 0\r\n\r\nrest");
    let head = ResponseHead::parse(&mut bytes, false).unwrap().unwrap();
    let reason = head.response.extensions().get::<ReasonPhrase>().unwrap();
    assert_eq!(reason.as_bytes(), b"Gone Fishing");
    assert_eq!(head.response.version(), Version::HTTP_11);
    assert_eq!(bytes, "rest");
}

proptest! {
    /// Whatever the bytes, the parser refuses them, waits for more, or takes a head.
    #[test]
    fn any_bytes_are_a_head_or_are_refused(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
        for start in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"] {
            let mut bytes = Bytes::from([start.as_bytes(), &tail].concat());
            if let Ok(Some(mut head)) = ResponseHead::parse(&mut bytes, false) {
                while let Ok(Some(_)) = head.body.decode(&mut bytes) {}
            }
        }
    }
}
