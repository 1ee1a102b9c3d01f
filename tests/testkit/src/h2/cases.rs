//! The claims of h2spec, by section of RFC 9113 and RFC 7541: what a client may not send, and what a server must bear.

use std::net::SocketAddr;

use super::kind::*;
use super::{H2Conn, PREFACE, block, field, flag, frame, head, pseudo, settings, windows};

/// Error codes (RFC 9113, 7).
const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

/// The reaction that a section asks for. `PROTOCOL_ERROR` stands for every more specific code: it is "for use when a more
/// specific error code is not available" (RFC 9113, 7).
#[derive(Debug, Clone, Copy)]
enum Reaction {
    /// The connection goes on: a ping after the frames is answered.
    GoesOn,
    /// Stream 1 is answered.
    Answer,
    /// The stream is reset, or the connection closed, with one of these error codes.
    StreamError(&'static [u32]),
    /// The connection is closed, with one of these error codes.
    ConnectionError(&'static [u32]),
}
use Reaction::{Answer, ConnectionError, GoesOn, StreamError};

/// A section, the claim, the frames that follow the settings, and the reaction.
type Case = (&'static str, &'static str, Vec<u8>, Reaction);

/// Holds the server at `addr` to all cases. Returns those in which it did something else.
pub async fn failures(addr: SocketAddr) -> Vec<String> {
    let mut failures = Vec::new();
    let all = framing().into_iter().chain(streams()).chain(control()).chain(messages()).chain(compression());
    for (section, claim, frames, reaction) in all {
        if let Err(instead) = check(addr, &frames, reaction).await {
            failures.push(format!("{section}: {claim}: {reaction:?} expected, {instead}"));
        }
    }
    failures.extend(windows::failures(addr).await);
    failures
}

async fn check(addr: SocketAddr, frames: &[u8], reaction: Reaction) -> Result<(), String> {
    let mut conn = H2Conn::connect(addr).await;
    let first = conn.read().await.ok_or("the connection was closed at once")?;
    if (first.kind, first.flags, first.stream) != (SETTINGS, 0, 0) {
        return Err(format!("the server began with {first:?}"));
    }
    conn.write(frames).await;
    if let GoesOn = reaction {
        conn.write(frame(PING, 0, 0, b"goes on!")).await;
    }
    let mut seen = Vec::new();
    while let Some(frame) = conn.read().await {
        let code = frame.error_code();
        match (reaction, frame.kind) {
            (GoesOn, PING) if frame.flags == flag::ACK && frame.payload == b"goes on!" => return Ok(()),
            (Answer, HEADERS) if frame.stream == 1 && frame.status().is_some() => return Ok(()),
            (StreamError(codes), RST_STREAM | GOAWAY) | (ConnectionError(codes), GOAWAY)
                if code.is_some_and(|code| code == PROTOCOL || codes.contains(&code)) =>
            {
                return Ok(());
            }
            (_, GOAWAY) => return Err(format!("GOAWAY with code {code:?} came after {seen:?}")),
            (GoesOn | Answer, RST_STREAM) => return Err(format!("a stream was reset with code {code:?}")),
            _ => seen.push((frame.kind, frame.stream, code)),
        }
    }
    match reaction {
        _ if conn.timed_out => Err(format!("nothing came after {seen:?}")),
        // The GOAWAY may be lost: what the test has written and the server has not read resets the connection.
        StreamError(_) | ConnectionError(_) => Ok(()),
        GoesOn | Answer => Err(format!("the connection was closed after {seen:?}")),
    }
}

fn get(stream: u32) -> Vec<u8> {
    head(stream, &pseudo("GET", "/"), true)
}

fn post(stream: u32) -> Vec<u8> {
    head(stream, &pseudo("POST", "/"), false)
}

/// A request head in a `HEADERS` frame with these flags.
fn headers(flags: u8, stream: u32) -> Vec<u8> {
    frame(HEADERS, flags, stream, &block(&pseudo("GET", "/")))
}

/// A request with more fields.
fn with(fields: &[(&str, &str)]) -> Vec<u8> {
    head(1, &[&pseudo("GET", "/"), fields].concat(), true)
}

const END: u8 = flag::END_HEADERS | flag::END_STREAM;

/// Sections 3 to 4.
fn framing() -> Vec<Case> {
    let too_long = vec![0; 16_385];
    let padded = [&[0][..], &block(&pseudo("GET", "/"))].concat();
    let with_priority = [&[0, 0, 0, 0, 255][..], &block(&pseudo("GET", "/"))].concat();
    vec![
        ("3.4", "a request after the settings is answered", get(1), Answer),
        ("4.1", "an unknown frame type is ignored", frame(0x16, 0, 0, &[0; 8]), GoesOn),
        ("4.1", "undefined flags are ignored", frame(PING, 0x16, 0, &[0; 8]), GoesOn),
        ("4.1", "the reserved bit is ignored", frame(PING, 0, 1 << 31, &[0; 8]), GoesOn),
        ("4.2", "DATA of 2^14 bytes", [post(1), frame(DATA, 1, 1, &too_long[1..])].concat(), Answer),
        (
            "4.2",
            "DATA larger than the maximum",
            [post(1), frame(DATA, 1, 1, &too_long)].concat(),
            StreamError(&[FRAME_SIZE]),
        ),
        (
            "4.2",
            "HEADERS larger than the maximum",
            frame(HEADERS, END, 1, &too_long),
            ConnectionError(&[FRAME_SIZE]),
        ),
        ("4.3", "an invalid header block", frame(HEADERS, END, 1, &[0x40]), ConnectionError(&[COMPRESSION])),
        (
            "4.3",
            "PRIORITY within a header block",
            [headers(1, 1), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 255])].concat(),
            ConnectionError(&[PROTOCOL]),
        ),
        (
            "4.3",
            "another stream's HEADERS within a header block",
            [headers(1, 1), headers(END, 3)].concat(),
            ConnectionError(&[PROTOCOL]),
        ),
        ("6.2", "padded HEADERS", frame(HEADERS, END | flag::PADDED, 1, &padded), Answer),
        ("6.2", "HEADERS with priority", frame(HEADERS, END | flag::PRIORITY, 1, &with_priority), Answer),
        ("5.5", "an unknown frame between streams", [get(1), frame(0xfe, 0, 1, &[0])].concat(), Answer),
        (
            "5.5",
            "an unknown frame within a header block",
            [headers(1, 1), frame(0xfe, 0, 1, &[0])].concat(),
            ConnectionError(&[PROTOCOL]),
        ),
    ]
}

/// Section 5, and the frames of section 6 that depend on a stream's state.
fn streams() -> Vec<Case> {
    let reset = |stream: u32| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    let continuation = |flags: u8| frame(CONTINUATION, flags, 1, &block(&[("x", "y")]));
    let window = frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 100]);
    let depends_on_itself = [&1_u32.to_be_bytes()[..], &[255]].concat();
    let own = [&depends_on_itself[..], &block(&pseudo("GET", "/"))].concat();
    let closed: &[u32] = &[STREAM_CLOSED];
    let closed_or_invalid: &[u32] = &[STREAM_CLOSED, PROTOCOL];
    let data = |stream| frame(DATA, 1, stream, b"x");
    vec![
        ("5.1", "DATA on an idle stream", data(1), ConnectionError(&[PROTOCOL])),
        ("5.1", "RST_STREAM on an idle stream", reset(1), ConnectionError(&[PROTOCOL])),
        ("5.1", "WINDOW_UPDATE on an idle stream", window, ConnectionError(&[PROTOCOL])),
        ("5.1", "CONTINUATION on an idle stream", continuation(4), ConnectionError(&[PROTOCOL])),
        ("5.1", "DATA on a half-closed stream", [get(1), data(1)].concat(), StreamError(closed)),
        ("5.1", "HEADERS on a half-closed stream", [get(1), get(1)].concat(), StreamError(closed)),
        (
            "5.1",
            "CONTINUATION on a half-closed stream",
            [get(1), continuation(4)].concat(),
            StreamError(closed_or_invalid),
        ),
        ("5.1", "DATA after RST_STREAM", [post(1), reset(1), data(1)].concat(), StreamError(closed)),
        ("5.1", "HEADERS after RST_STREAM", [post(1), reset(1), get(1)].concat(), StreamError(closed)),
        (
            "5.1",
            "CONTINUATION after RST_STREAM",
            [post(1), reset(1), continuation(4)].concat(),
            StreamError(closed_or_invalid),
        ),
        (
            "5.1",
            "PRIORITY on a closed stream",
            [get(1), reset(1), frame(PRIORITY, 0, 1, &[0; 5])].concat(),
            GoesOn,
        ),
        ("5.1.1", "a stream with an even number", get(2), ConnectionError(&[PROTOCOL])),
        (
            "5.1.1",
            "a stream with a smaller number than the last",
            [get(5), get(3)].concat(),
            ConnectionError(closed_or_invalid),
        ),
        (
            "5.3.1",
            "HEADERS that depend on their own stream",
            frame(HEADERS, END | flag::PRIORITY, 1, &own),
            StreamError(&[PROTOCOL]),
        ),
        (
            "5.3.1",
            "PRIORITY that depends on its own stream",
            frame(PRIORITY, 0, 1, &depends_on_itself),
            StreamError(&[PROTOCOL]),
        ),
        (
            "5.4.1",
            "a connection error closes the connection",
            [frame(PING, 0, 3, &[0; 8]), get(1)].concat(),
            ConnectionError(&[PROTOCOL]),
        ),
        (
            "8.1",
            "a second HEADERS frame without END_STREAM",
            [post(1), head(1, &[("x", "y")], false)].concat(),
            StreamError(&[PROTOCOL]),
        ),
        (
            "8.4",
            "PUSH_PROMISE from a client",
            frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2]),
            ConnectionError(&[PROTOCOL]),
        ),
    ]
}

/// Section 6: frames of the wrong size, on the wrong stream, with values out of range.
fn control() -> Vec<Case> {
    let set = |id, value| frame(SETTINGS, 0, 0, &settings(&[(id, value)]));
    let first = |flags| headers(flags, 1);
    let more = |flags| frame(CONTINUATION, flags, 1, &block(&[("x", "y")]));
    let protocol = ConnectionError(&[PROTOCOL]);
    let size = ConnectionError(&[FRAME_SIZE]);
    vec![
        ("6.1", "DATA on stream 0", [post(1), frame(DATA, 1, 0, b"x")].concat(), protocol),
        ("6.1", "DATA with too much padding", [post(1), frame(DATA, 9, 1, &[6, 1, 2])].concat(), protocol),
        ("6.2", "HEADERS on stream 0", headers(END, 0), protocol),
        ("6.2", "HEADERS with too much padding", frame(HEADERS, END | flag::PADDED, 1, &[9, 0x82]), protocol),
        ("6.3", "PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0; 5]), protocol),
        (
            "6.3",
            "PRIORITY of four bytes",
            [post(1), frame(PRIORITY, 0, 1, &[0; 4])].concat(),
            StreamError(&[FRAME_SIZE]),
        ),
        ("6.4", "RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, &[0; 4]), protocol),
        ("6.4", "RST_STREAM of three bytes", [post(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat(), size),
        ("6.5", "an acknowledgement of settings with a payload", frame(SETTINGS, 1, 0, &[0; 6]), size),
        ("6.5", "SETTINGS on a stream", frame(SETTINGS, 0, 1, &settings(&[(3, 100)])), protocol),
        ("6.5", "SETTINGS of five bytes", frame(SETTINGS, 0, 0, &[0; 5]), size),
        ("6.5.2", "ENABLE_PUSH that is neither 0 nor 1", set(2, 2), protocol),
        ("6.5.2", "INITIAL_WINDOW_SIZE above the maximum", set(4, 1 << 31), ConnectionError(&[FLOW_CONTROL])),
        ("6.5.2", "MAX_FRAME_SIZE below the minimum", set(5, 16_383), protocol),
        ("6.5.2", "MAX_FRAME_SIZE above the maximum", set(5, 1 << 24), protocol),
        ("6.5.2", "an unknown setting", set(0xff, 1), GoesOn),
        ("6.7", "PING on a stream", frame(PING, 0, 1, &[0; 8]), protocol),
        ("6.7", "PING of six bytes", frame(PING, 0, 0, &[0; 6]), size),
        ("6.7", "an acknowledgement of no ping", frame(PING, 1, 0, b"invalid!"), GoesOn),
        ("6.8", "GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), protocol),
        ("6.9", "WINDOW_UPDATE by 0", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), protocol),
        (
            "6.9",
            "a stream's WINDOW_UPDATE by 0",
            [post(1), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(),
            StreamError(&[PROTOCOL]),
        ),
        ("6.9", "WINDOW_UPDATE of three bytes", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]), size),
        (
            "6.9.1",
            "a connection's window above the maximum",
            frame(WINDOW_UPDATE, 0, 0, &i32::MAX.to_be_bytes()).repeat(2),
            ConnectionError(&[FLOW_CONTROL]),
        ),
        (
            "6.9.1",
            "a stream's window above the maximum",
            [post(1), frame(WINDOW_UPDATE, 0, 1, &i32::MAX.to_be_bytes()).repeat(2)].concat(),
            StreamError(&[FLOW_CONTROL]),
        ),
        ("6.10", "a header block in three frames", [first(1), more(0), more(4)].concat(), Answer),
        (
            "6.10",
            "DATA within a header block",
            [first(1), more(0), frame(DATA, 1, 1, b"x")].concat(),
            protocol,
        ),
        ("6.10", "CONTINUATION on stream 0", [first(1), frame(CONTINUATION, 4, 0, &[])].concat(), protocol),
        ("6.10", "CONTINUATION after a whole header block", [headers(4, 1), more(4)].concat(), protocol),
        ("6.10", "CONTINUATION after the last one", [first(0), more(4), more(4)].concat(), protocol),
        ("6.10", "CONTINUATION after DATA", [post(1), frame(DATA, 0, 1, b"x"), more(4)].concat(), protocol),
        ("7", "GOAWAY with an unknown error code", frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff]), GoesOn),
        (
            "7",
            "RST_STREAM with an unknown error code",
            [post(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 0xff])].concat(),
            GoesOn,
        ),
    ]
}

/// Section 8: malformed requests.
fn messages() -> Vec<Case> {
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
fn compression() -> Vec<Case> {
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
