use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use proptest::prelude::*;
use tokio::io::AsyncWrite;

use super::decoder::Decoder;
use super::encoder::Encoder;
use super::outbox::Outbox;

/// A socket that takes so many bytes at a time.
struct Socket {
    takes: usize,
    taken: Vec<u8>,
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let takes = self.takes.min(bytes.len());
        self.taken.extend_from_slice(&bytes[..takes]);
        Poll::Ready(Ok(takes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.poll_write(cx, &all)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// All that waits, as a socket gets it that takes `takes` bytes at a time.
fn written(out: &mut Outbox, takes: usize) -> Vec<u8> {
    let mut socket = Socket { takes, taken: Vec::new() };
    let mut cx = Context::from_waker(Waker::noop());
    while !out.is_empty() {
        assert!(matches!(out.poll_write(Pin::new(&mut socket), &mut cx), Poll::Ready(Ok(1..))));
    }
    socket.taken
}

fn framed(mut encoder: Encoder, frames: Vec<Option<Frame<Bytes>>>) -> Option<String> {
    let mut out = Outbox::default();
    let all_fit = frames.into_iter().all(|frame| encoder.frame(frame, &mut out));
    all_fit.then(|| String::from_utf8(written(&mut out, usize::MAX)).unwrap())
}

#[test]
fn tiny_chunks_go_out_many_at_a_time() {
    let mut out = Outbox::default();
    out.push(Bytes::from(vec![b'x'; 5000]));
    let mut encoder = Encoder::Chunked;
    for _ in 0..10_000 {
        assert!(encoder.frame(Some(Frame::data(Bytes::from_static(b"a"))), &mut out));
    }
    let mut socket = Socket { takes: usize::MAX, taken: Vec::new() };
    let mut cx = Context::from_waker(Waker::noop());
    let mut writes = 0;
    while !out.is_empty() {
        assert!(out.poll_write(Pin::new(&mut socket), &mut cx).is_ready());
        writes += 1;
    }
    assert_eq!(socket.taken.len(), 5000 + 10_000 * "1\r\na\r\n".len());
    assert!(writes < 10, "{writes}");
}

#[test]
fn a_body_is_exactly_as_long_as_its_head_has_said() {
    let data = |text: &'static str| Some(Frame::data(Bytes::from_static(text.as_bytes())));
    let trailers = || {
        Some(Frame::trailers(HeaderMap::from_iter([(
            HeaderName::from_static("x-sum"),
            HeaderValue::from_static("t"),
        )])))
    };
    let length = Encoder::Length;
    assert_eq!(framed(Encoder::UntilEnd, vec![data("ab"), trailers(), None]).as_deref(), Some("ab"));
    assert_eq!(framed(Encoder::None, vec![data("ab")]), None, "there is none");
    assert_eq!(framed(length(5), vec![data("ab"), data("cde"), None]).as_deref(), Some("abcde"));
    assert_eq!(framed(length(5), vec![data("abc"), None]), None, "too short");
    assert_eq!(framed(length(5), vec![data("abc"), data("def")]), None, "too long");
    assert_eq!(framed(length(1), vec![data("a"), trailers(), None]).as_deref(), Some("a"));
    let chunks = vec![data("ab"), data(""), data("0123456789abcdef"), None];
    let expected = "2\r\nab\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
    assert_eq!(framed(Encoder::Chunked, chunks).as_deref(), Some(expected));
    let chunks = vec![data("ab"), trailers(), None];
    assert_eq!(framed(Encoder::Chunked, chunks).as_deref(), Some("2\r\nab\r\n0\r\nx-sum: t\r\n\r\n"));
}

proptest! {
    /// Whatever is put in, and however little the socket takes at a time: it comes out whole and in order.
    #[test]
    fn an_outbox_keeps_the_order(
        pieces in proptest::collection::vec((0_usize..9000, any::<u8>(), any::<bool>(), any::<bool>()), 0..12),
        takes in 1_usize..20_000,
    ) {
        let (mut out, mut expected) = (Outbox::default(), Vec::new());
        let mut socket = Socket { takes, taken: Vec::new() };
        let mut cx = Context::from_waker(Waker::noop());
        for (size, byte, is_head, write) in pieces {
            let piece = vec![byte; size];
            expected.extend_from_slice(&piece);
            match is_head {
                true => out.write_head(|text| text.extend_from_slice(&piece)),
                false => out.push(piece.into()),
            }
            prop_assert_eq!(out.len(), expected.len() - socket.taken.len());
            if write && !out.is_empty() {
                prop_assert!(out.poll_write(Pin::new(&mut socket), &mut cx).is_ready());
            }
        }
        socket.taken.extend(written(&mut out, takes));
        prop_assert!(socket.taken == expected);
    }

    /// Whatever the pieces in which a chunked body comes: its content, its trailers and its end are the same, and what
    /// comes behind it is left alone.
    #[test]
    fn chunks_are_content_in_any_pieces(
        chunks in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 1..40), "(;[a-z=]{0,8})?"), 0..8),
        trailers in proptest::collection::vec("[a-z]{1,8}: [a-z ]{0,8}[a-z]", 0..3),
        cuts in proptest::collection::vec(1..20_usize, 1..60),
    ) {
        let mut wire = Vec::new();
        let mut content: Vec<u8> = Vec::new();
        for (chunk, extension) in &chunks {
            wire.extend(format!("{:x}{extension}\r\n", chunk.len()).bytes());
            wire.extend(chunk);
            wire.extend(b"\r\n");
            content.extend(chunk);
        }
        wire.extend(b"0\r\n");
        wire.extend(trailers.iter().flat_map(|line| format!("{line}\r\n").into_bytes()));
        wire.extend(b"\r\nHTTP/1.1");
        let mut decoder = Decoder::chunked();
        let (mut got, mut fields) = (Vec::<u8>::new(), 0);
        let mut cuts = cuts.into_iter().cycle();
        let mut bytes = Bytes::new();
        let mut wire = Bytes::from(wire);
        while !decoder.is_over() {
            match decoder.decode(&mut bytes).unwrap() {
                Some(frame) => match frame.into_data() {
                    Ok(data) => got.extend(data),
                    Err(frame) => fields = frame.into_trailers().unwrap().len(),
                },
                None if decoder.is_over() => break,
                None => {
                    prop_assert!(bytes.is_empty(), "all that is here was used");
                    bytes = wire.split_to(cuts.next().unwrap().min(wire.len()));
                    prop_assert!(!bytes.is_empty(), "it does not end");
                }
            }
        }
        prop_assert_eq!(got, content);
        prop_assert_eq!(fields, trailers.len());
        let rest: Vec<u8> = bytes.iter().chain(&wire).copied().collect();
        prop_assert_eq!(rest, b"HTTP/1.1");
    }
}
