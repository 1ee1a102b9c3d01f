//! Frames and the states of streams (RFC 9113, 3 to 7).

use super::claim::Reaction::{Answer, ConnectionError, GoesOn, StreamError};
use super::claim::*;
use crate::h2::kind::*;
use crate::h2::{block, flag, frame, head, pseudo, settings};

/// Sections 3 to 4.
pub(super) fn framing() -> Vec<Case> {
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
pub(super) fn streams() -> Vec<Case> {
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
pub(super) fn control() -> Vec<Case> {
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
