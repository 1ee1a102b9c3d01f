//! Malformed requests (RFC 9113, 8) and header blocks (RFC 7541).

use super::claim::Reaction::{Answer, ConnectionError, StreamError};
use super::claim::*;
use crate::h2::kind::{DATA, HEADERS};
use crate::h2::{PREFACE, block, field, frame, head, pseudo};

/// Section 8: malformed requests.
pub(super) fn messages() -> Vec<Case> {
    let all = pseudo("GET", "/");
    let without = |name: &str| {
        let fields: Vec<_> = all.iter().copied().filter(|(other, _)| *other != name).collect();
        head(1, &fields, true)
    };
    let twice = |name: &str| {
        let again: Vec<_> = all.iter().copied().filter(|(other, _)| *other == name).collect();
        head(1, &[&all[..], &again].concat(), true)
    };
    let with_length = |data: &[&str]| {
        let head = head(1, &[&pseudo("POST", "/")[..], &[("content-length", "1")]].concat(), false);
        let last = data.len() - 1;
        let frames = data
            .iter()
            .enumerate()
            .flat_map(|(at, data)| frame(DATA, u8::from(at == last), 1, data.as_bytes()));
        head.into_iter().chain(frames).collect::<Vec<u8>>()
    };
    let malformed = StreamError(&[PROTOCOL]);
    vec![
        (
            "8.1",
            "trailers",
            [post(1), frame(DATA, 0, 1, b"x"), head(1, &[("x", "y")], true)].concat(),
            Answer,
        ),
        (
            "8.1",
            "trailers with a pseudo-header field",
            [post(1), head(1, &[(":test", "x")], true)].concat(),
            malformed,
        ),
        ("8.1.1", "less DATA than content-length", with_length(&[""]), malformed),
        ("8.1.1", "more DATA than content-length", with_length(&["test"]), malformed),
        ("8.1.1", "more DATA than content-length, in two frames", with_length(&["te", "st"]), malformed),
        ("8.2", "a name in upper case", with(&[("X-TEST", "ok")]), malformed),
        ("8.2.1", "a name with a space", with(&[("x test", "ok")]), malformed),
        (
            "8.2.1",
            "a value with a line feed",
            with(&[("x-test", "a\nb")]),
            StreamError(&[PROTOCOL, COMPRESSION]),
        ),
        ("8.2.1", "a value with a NUL", with(&[("x-test", "a\0b")]), StreamError(&[PROTOCOL, COMPRESSION])),
        ("8.2.2", "connection", with(&[("connection", "keep-alive")]), malformed),
        ("8.2.2", "keep-alive", with(&[("keep-alive", "1")]), malformed),
        ("8.2.2", "proxy-connection", with(&[("proxy-connection", "keep-alive")]), malformed),
        ("8.2.2", "transfer-encoding", with(&[("transfer-encoding", "chunked")]), malformed),
        ("8.2.2", "upgrade", with(&[("upgrade", "websocket")]), malformed),
        ("8.2.2", "te other than trailers", with(&[("te", "trailers, deflate")]), malformed),
        ("8.2.2", "te: trailers", with(&[("te", "trailers")]), Answer),
        ("8.2.3", "a cookie in pieces", with(&[("cookie", "a=1"), ("cookie", "b=2")]), Answer),
        ("8.3", "an unknown pseudo-header field", with(&[(":test", "ok")]), malformed),
        ("8.3", "a response's pseudo-header field", with(&[(":status", "200")]), malformed),
        (
            "8.3",
            "a pseudo-header field after a field",
            head(1, &[&[("x", "y")], &all[..]].concat(), true),
            malformed,
        ),
        ("8.3.1", "an empty :path", head(1, &pseudo("GET", ""), true), malformed),
        ("8.3.1", "a :path with a space", head(1, &pseudo("GET", "/a b"), true), malformed),
        ("8.3.1", "a :path with a control character", head(1, &pseudo("GET", "/a\u{1}b"), true), malformed),
        ("8.3.1", "no :method", without(":method"), malformed),
        ("8.3.1", "no :scheme", without(":scheme"), malformed),
        ("8.3.1", "no :path", without(":path"), malformed),
        ("8.3.1", ":method twice", twice(":method"), malformed),
        ("8.3.1", ":scheme twice", twice(":scheme"), malformed),
        ("8.3.1", ":path twice", twice(":path"), malformed),
        ("8.3.1", ":authority twice", twice(":authority"), malformed),
        ("8.5", "CONNECT with :path", head(1, &pseudo("CONNECT", "/"), true), malformed),
        ("3.4", "a second preface", PREFACE.to_vec(), ConnectionError(&[PROTOCOL, FRAME_SIZE])),
    ]
}

/// RFC 7541.
pub(super) fn compression() -> Vec<Case> {
    let ended = |more: &[u8]| frame(HEADERS, END, 1, &[&block(&pseudo("GET", "/")), more].concat());
    let huffman = |code: &[u8]| {
        [&[0x00, 0x04][..], b"test", &[0x80 | u8::try_from(code.len()).unwrap()], code].concat()
    };
    let invalid = ConnectionError(&[COMPRESSION]);
    vec![
        ("HPACK 2.3.3", "an index beyond both tables", ended(&[0xc6]), invalid),
        ("HPACK 4.2", "a change of the table's size at the end", ended(&[0x20]), invalid),
        ("HPACK 5.2", "padding of more than 7 bits", ended(&huffman(&[0x64, 0x02, 0xff, 0xff])), invalid),
        ("HPACK 5.2", "padding with zeros", ended(&huffman(&[0x53, 0x50, 0x7f, 0xff, 0xfb, 0xb8])), invalid),
        (
            "HPACK 5.2",
            "the end of string within a string",
            ended(&huffman(&[0x53, 0xff, 0xff, 0xff, 0xff, 0xe2])),
            invalid,
        ),
        ("HPACK 6.1", "the index 0", ended(&[0x80]), invalid),
        (
            "HPACK 6.3",
            "a table larger than allowed",
            frame(HEADERS, END, 1, &[&[0x3f, 0xff, 0xff, 0x03][..], &block(&pseudo("GET", "/"))].concat()),
            invalid,
        ),
        (
            "HPACK 6.2",
            "a literal field with an empty name",
            ended(&field(b"", b"x")),
            StreamError(&[PROTOCOL, COMPRESSION]),
        ),
        ("HPACK 6.2.3", "a field that is never indexed", ended(&[0x10, 1, b'x', 1, b'y']), Answer),
    ]
}
