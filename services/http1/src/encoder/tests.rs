use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use http::header::{HeaderName, HeaderValue};

use super::*;

/// Writes all that waits. Returns the bytes, and the number of writes.
fn written(out: &mut WriteBuf) -> (Vec<u8>, usize) {
    let (mut socket, mut writes) = (Vec::new(), 0);
    let mut cx = Context::from_waker(Waker::noop());
    while !out.is_empty() {
        assert!(matches!(out.poll_write(Pin::new(&mut socket), &mut cx), Poll::Ready(Ok(1..))));
        writes += 1;
    }
    (socket, writes)
}

fn framed(mut encoder: BodyEncoder, frames: Vec<Option<Frame<Bytes>>>) -> Option<String> {
    let mut out = WriteBuf::default();
    let all_fit = frames.into_iter().all(|frame| encoder.encode(frame, &mut out).is_ok());
    all_fit.then(|| String::from_utf8(written(&mut out).0).unwrap())
}

#[test]
fn tiny_chunks_are_written_many_at_a_time() {
    let mut out = WriteBuf::default();
    out.push(Bytes::from(vec![b'x'; 5000]));
    let mut encoder = BodyEncoder::Chunked;
    for _ in 0..10_000 {
        encoder.encode(Some(Frame::data(Bytes::from_static(b"a"))), &mut out).unwrap();
    }
    let (bytes, writes) = written(&mut out);
    assert_eq!(bytes.len(), 5000 + 10_000 * "1\r\na\r\n".len());
    assert!(writes < 10, "{writes}");
}

#[test]
fn a_body_is_exactly_as_long_as_its_head_has_announced() {
    let data = |text: &'static str| Some(Frame::data(Bytes::from_static(text.as_bytes())));
    let trailers = || {
        Some(Frame::trailers(HeaderMap::from_iter([(
            HeaderName::from_static("x-sum"),
            HeaderValue::from_static("t"),
        )])))
    };
    let length = BodyEncoder::Length;
    let close_delimited = vec![data("ab"), trailers(), None];
    assert_eq!(framed(BodyEncoder::CloseDelimited, close_delimited).as_deref(), Some("ab"));
    assert_eq!(framed(BodyEncoder::Done, vec![data("ab")]), None, "no body");
    assert_eq!(framed(length(5), vec![data("ab"), data("cde"), None]).as_deref(), Some("abcde"));
    assert_eq!(framed(length(5), vec![data("abc"), None]), None, "too short");
    assert_eq!(framed(length(5), vec![data("abc"), data("def")]), None, "too long");
    assert_eq!(framed(length(1), vec![data("a"), trailers(), None]).as_deref(), Some("a"));
    let chunks = vec![data("ab"), data(""), data("0123456789abcdef"), None];
    let expected = "2\r\nab\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
    assert_eq!(framed(BodyEncoder::Chunked, chunks).as_deref(), Some(expected));
    let chunks = vec![data("ab"), trailers(), None];
    assert_eq!(framed(BodyEncoder::Chunked, chunks).as_deref(), Some("2\r\nab\r\n0\r\nx-sum: t\r\n\r\n"));
}
