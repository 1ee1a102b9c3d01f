//! A reply's head as an HTTP/1 client gets it. Pure, but for the date.

use std::cell::Cell;
use std::time::SystemTime;

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderValue, StatusCode, Version, response};

use crate::http1;
use crate::http1::encoder::{Encoder, write_field, write_fields};

/// Room for a head that no usual reply exceeds.
const USUAL_SIZE: usize = 512;

/// What of a request says how its reply is framed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) version: Version,
    /// The reply to HEAD has a head only.
    pub(super) head_only: bool,
    /// The connection is to go on.
    pub(super) keep_alive: bool,
}

/// Writes a reply's head. `length` is the body's where it is known without the head's word. Says how the body is to be
/// framed, and whether the connection goes on behind it.
pub(super) fn encode(
    out: &mut Vec<u8>,
    parts: &response::Parts,
    length: Option<u64>,
    asked: Asked,
) -> (Encoder, bool) {
    out.reserve(USUAL_SIZE);
    let is_old = asked.version == Version::HTTP_10;
    write_status(out, parts, is_old);
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        write_fields(out, &parts.headers);
        out.extend_from_slice(b"\r\n");
        return (Encoder::None, false);
    }
    let mut keep_alive = asked.keep_alive;
    let (mut said, mut dated) = (None, false);
    for (name, value) in &parts.headers {
        if name == CONTENT_LENGTH {
            said = said.or(Some(value));
        } else if name == CONNECTION {
            keep_alive &= !value.as_bytes().eq_ignore_ascii_case(b"close");
        } else if name != TRANSFER_ENCODING {
            dated |= name == DATE;
            write_field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    let (encoder, length) = framing(parts.status, said, length, asked);
    match (length, said) {
        // Mostly it can stay as it came.
        (Length::Said, Some(said)) => write_field(out, CONTENT_LENGTH.as_str().as_bytes(), said.as_bytes()),
        (Length::Known(length), _) => {
            write_field(out, CONTENT_LENGTH.as_str().as_bytes(), HeaderValue::from(length).as_bytes());
        }
        _ => {}
    }
    match encoder {
        Encoder::Chunked => write_field(out, TRANSFER_ENCODING.as_str().as_bytes(), b"chunked"),
        Encoder::UntilEnd => keep_alive = false,
        Encoder::None | Encoder::Length(_) => {}
    }
    match keep_alive {
        true if is_old => write_field(out, CONNECTION.as_str().as_bytes(), b"keep-alive"),
        true => {}
        false => write_field(out, CONNECTION.as_str().as_bytes(), b"close"),
    }
    if !dated {
        write_field(out, DATE.as_str().as_bytes(), &now());
    }
    out.extend_from_slice(b"\r\n");
    (encoder, keep_alive)
}

/// The `Content-Length` that a head has.
enum Length {
    None,
    /// As the instance has said it.
    Said,
    Known(u64),
}

/// How the body is framed, and what the head says of its length.
fn framing(
    status: StatusCode,
    said: Option<&HeaderValue>,
    length: Option<u64>,
    asked: Asked,
) -> (Encoder, Length) {
    let said = said.and_then(|value| http1::length(value.as_bytes()));
    match (status, said) {
        (StatusCode::NO_CONTENT, _) | (StatusCode::NOT_MODIFIED, None) => (Encoder::None, Length::None),
        (StatusCode::NOT_MODIFIED, Some(_)) => (Encoder::None, Length::Said),
        // A length that is said here is the one that GET would get.
        (_, Some(_)) if asked.head_only => (Encoder::None, Length::Said),
        (_, None) if asked.head_only => match length {
            Some(length @ 1..) => (Encoder::None, Length::Known(length)),
            _ => (Encoder::None, Length::None),
        },
        (_, Some(said)) => (Encoder::Length(said), Length::Said),
        (_, None) => match length {
            Some(length) => (Encoder::Length(length), Length::Known(length)),
            None if asked.version == Version::HTTP_10 => (Encoder::UntilEnd, Length::None),
            None => (Encoder::Chunked, Length::None),
        },
    }
}

fn write_status(out: &mut Vec<u8>, parts: &response::Parts, is_old: bool) {
    let reason = parts.extensions.get::<hyper::ext::ReasonPhrase>();
    if parts.status == StatusCode::OK && !is_old && reason.is_none() {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(if is_old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.push(b' ');
    let known = || parts.status.canonical_reason().unwrap_or_default().as_bytes();
    out.extend_from_slice(reason.map_or_else(known, hyper::ext::ReasonPhrase::as_bytes));
    out.extend_from_slice(b"\r\n");
}

/// The time as `Date` has it, written once a second.
fn now() -> [u8; 29] {
    thread_local! {
        static WRITTEN: Cell<(u64, [u8; 29])> = const { Cell::new((0, [0; 29])) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (written, text) = WRITTEN.get();
    if written == second && second != 0 {
        return text;
    }
    let mut text = [b' '; 29];
    for (to, from) in text.iter_mut().zip(httpdate::fmt_http_date(now).bytes()) {
        *to = from;
    }
    WRITTEN.set((second, text));
    text
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    const GET: Asked = Asked { version: Version::HTTP_11, head_only: false, keep_alive: true };
    const HEAD: Asked = Asked { head_only: true, ..GET };
    const OLD: Asked = Asked { version: Version::HTTP_10, ..GET };

    /// The head without its date, and what `encode` has said.
    fn encoded(reply: http::response::Builder, length: Option<u64>, asked: Asked) -> (String, Encoder, bool) {
        let (parts, ()) = reply.header(DATE, "D").body(()).unwrap().into_parts();
        let mut out = Vec::new();
        let (encoder, keep_alive) = encode(&mut out, &parts, length, asked);
        (String::from_utf8(out).unwrap().replace("date: D\r\n", ""), encoder, keep_alive)
    }

    #[test]
    fn a_reply_is_framed_as_its_request_and_status_let_it() {
        let reply = |status: u16| Response::builder().status(status);
        let with_length = |status| reply(status).header("content-length", "5");
        for (reply, length, asked, expected) in [
            (with_length(200), None, GET, ("HTTP/1.1 200 OK|content-length: 5", Encoder::Length(5), true)),
            (reply(200), Some(7), GET, ("HTTP/1.1 200 OK|content-length: 7", Encoder::Length(7), true)),
            (reply(200), Some(0), GET, ("HTTP/1.1 200 OK|content-length: 0", Encoder::Length(0), true)),
            (reply(200), None, GET, ("HTTP/1.1 200 OK|transfer-encoding: chunked", Encoder::Chunked, true)),
            (reply(200), None, OLD, ("HTTP/1.0 200 OK|connection: close", Encoder::UntilEnd, false)),
            (
                with_length(404),
                None,
                OLD,
                ("HTTP/1.0 404 Not Found|content-length: 5|connection: keep-alive", Encoder::Length(5), true),
            ),
            (with_length(200), Some(0), HEAD, ("HTTP/1.1 200 OK|content-length: 5", Encoder::None, true)),
            (reply(200), Some(0), HEAD, ("HTTP/1.1 200 OK", Encoder::None, true)),
            (reply(404), Some(7), HEAD, ("HTTP/1.1 404 Not Found|content-length: 7", Encoder::None, true)),
            (reply(200), None, HEAD, ("HTTP/1.1 200 OK", Encoder::None, true)),
            (with_length(204), Some(0), GET, ("HTTP/1.1 204 No Content", Encoder::None, true)),
            (
                with_length(304),
                Some(0),
                GET,
                ("HTTP/1.1 304 Not Modified|content-length: 5", Encoder::None, true),
            ),
            (reply(304), Some(0), GET, ("HTTP/1.1 304 Not Modified", Encoder::None, true)),
            (
                with_length(200).header("connection", "close"),
                None,
                GET,
                ("HTTP/1.1 200 OK|content-length: 5|connection: close", Encoder::Length(5), false),
            ),
            (
                reply(101).header("connection", "upgrade").header("upgrade", "x"),
                Some(0),
                GET,
                ("HTTP/1.1 101 Switching Protocols|connection: upgrade|upgrade: x", Encoder::None, false),
            ),
            (with_length(299), None, GET, ("HTTP/1.1 299 |content-length: 5", Encoder::Length(5), true)),
        ] {
            let (head, encoder, keep_alive) = expected;
            let head = format!("{}\r\n\r\n", head.replace('|', "\r\n"));
            assert_eq!(encoded(reply, length, asked), (head, encoder, keep_alive));
        }
    }

    #[test]
    fn a_reply_without_a_date_gets_one() {
        let (parts, ()) = Response::new(()).into_parts();
        let mut out = Vec::new();
        encode(&mut out, &parts, Some(0), GET);
        let head = String::from_utf8(out).unwrap();
        let date = head.lines().find_map(|line| line.strip_prefix("date: ")).unwrap();
        let age = SystemTime::now().duration_since(httpdate::parse_http_date(date).unwrap()).unwrap();
        assert!(age.as_secs() < 60, "{head}");
    }
}
