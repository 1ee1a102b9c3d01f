//! A response's head onto the wire. Pure, except for the date.

use std::cell::Cell;
use std::time::SystemTime;

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderValue, Response, StatusCode, Version, response};

use crate::encoder::{BodyEncoder, write_field, write_fields};
use crate::header_map;
use crate::reason::ReasonPhrase;
use crate::syntax::content_length;

/// Room for most heads.
const USUAL_SIZE: usize = 512;

/// The properties of a request that its response's framing depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestInfo {
    pub(super) version: Version,
    /// The request is a `HEAD`.
    pub(super) head_only: bool,
    /// Whether the connection persists.
    pub(super) keep_alive: bool,
}

/// Writes a head. `length` is the body's, if the body itself knows it. Returns how the body is framed, and whether the
/// connection persists.
pub(super) fn encode(
    out: &mut Vec<u8>,
    parts: &response::Parts,
    length: Option<u64>,
    info: RequestInfo,
) -> (BodyEncoder, bool) {
    out.reserve(USUAL_SIZE);
    let is_http_10 = info.version == Version::HTTP_10;
    write_status(out, parts, is_http_10);
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        write_fields(out, &parts.headers);
        out.extend_from_slice(b"\r\n");
        return (BodyEncoder::Done, false);
    }
    let mut keep_alive = info.keep_alive;
    let (mut declared, mut dated) = (None, false);
    for (name, value) in &parts.headers {
        if name == CONTENT_LENGTH {
            declared = declared.or(Some(value));
        } else if name == CONNECTION {
            keep_alive &= !value.as_bytes().eq_ignore_ascii_case(b"close");
        } else if name != TRANSFER_ENCODING {
            dated |= name == DATE;
            write_field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    let (encoder, length) = framing(parts.status, declared, length, info);
    match (length, declared) {
        (Length::Declared, Some(value)) => {
            write_field(out, CONTENT_LENGTH.as_str().as_bytes(), value.as_bytes())
        }
        (Length::Known(length), _) => {
            write_field(out, CONTENT_LENGTH.as_str().as_bytes(), HeaderValue::from(length).as_bytes());
        }
        _ => {}
    }
    match encoder {
        BodyEncoder::Chunked => write_field(out, TRANSFER_ENCODING.as_str().as_bytes(), b"chunked"),
        BodyEncoder::CloseDelimited => keep_alive = false,
        BodyEncoder::Done | BodyEncoder::Length(_) => {}
    }
    match keep_alive {
        true if is_http_10 => write_field(out, CONNECTION.as_str().as_bytes(), b"keep-alive"),
        true => {}
        false => write_field(out, CONNECTION.as_str().as_bytes(), b"close"),
    }
    if !dated {
        write_field(out, DATE.as_str().as_bytes(), &date_value());
    }
    out.extend_from_slice(b"\r\n");
    (encoder, keep_alive)
}

/// Writes an interim response.
pub(super) fn encode_interim(out: &mut Vec<u8>, response: Response<()>) {
    let (parts, ()) = response.into_parts();
    write_status(out, &parts, false);
    write_fields(out, &parts.headers);
    out.extend_from_slice(b"\r\n");
    header_map::recycle(parts.headers);
}

/// The `Content-Length` to be written.
enum Length {
    None,
    /// The handler's, as it is.
    Declared,
    Known(u64),
}

/// How the body is framed, and the length to be written.
fn framing(
    status: StatusCode,
    declared: Option<&HeaderValue>,
    length: Option<u64>,
    info: RequestInfo,
) -> (BodyEncoder, Length) {
    let declared = declared.and_then(|value| content_length(value.as_bytes()));
    match (status, declared) {
        (StatusCode::NO_CONTENT, _) | (StatusCode::NOT_MODIFIED, None) => (BodyEncoder::Done, Length::None),
        (StatusCode::NOT_MODIFIED, Some(_)) => (BodyEncoder::Done, Length::Declared),
        // A length that is declared here is the one that GET would get.
        (_, Some(_)) if info.head_only => (BodyEncoder::Done, Length::Declared),
        (_, None) if info.head_only => match length {
            Some(length @ 1..) => (BodyEncoder::Done, Length::Known(length)),
            _ => (BodyEncoder::Done, Length::None),
        },
        (_, Some(declared)) => (BodyEncoder::Length(declared), Length::Declared),
        (_, None) => match length {
            Some(length) => (BodyEncoder::Length(length), Length::Known(length)),
            None if info.version == Version::HTTP_10 => (BodyEncoder::CloseDelimited, Length::None),
            None => (BodyEncoder::Chunked, Length::None),
        },
    }
}

fn write_status(out: &mut Vec<u8>, parts: &response::Parts, is_http_10: bool) {
    let reason = parts.extensions.get::<ReasonPhrase>();
    if parts.status == StatusCode::OK && !is_http_10 && reason.is_none() {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(if is_http_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.push(b' ');
    let known = || parts.status.canonical_reason().unwrap_or_default().as_bytes();
    out.extend_from_slice(reason.map_or_else(known, ReasonPhrase::as_bytes));
    out.extend_from_slice(b"\r\n");
}

/// The value of the `Date` field, formatted once a second.
pub fn date_value() -> [u8; 29] {
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
    use super::*;

    const GET: RequestInfo = RequestInfo { version: Version::HTTP_11, head_only: false, keep_alive: true };
    const HEAD: RequestInfo = RequestInfo { head_only: true, ..GET };
    const HTTP_10: RequestInfo = RequestInfo { version: Version::HTTP_10, ..GET };

    /// The head without its date, and what `encode` returned.
    fn encoded(
        response: http::response::Builder,
        length: Option<u64>,
        info: RequestInfo,
    ) -> (String, BodyEncoder, bool) {
        let (parts, ()) = response.header(DATE, "D").body(()).unwrap().into_parts();
        let mut out = Vec::new();
        let (encoder, keep_alive) = encode(&mut out, &parts, length, info);
        (String::from_utf8(out).unwrap().replace("date: D\r\n", ""), encoder, keep_alive)
    }

    #[test]
    fn a_response_is_framed_as_its_request_and_status_allow() {
        let response = |status: u16| Response::builder().status(status);
        let with_length = |status| response(status).header("content-length", "5");
        for (response, length, info, expected) in [
            (
                with_length(200),
                None,
                GET,
                ("HTTP/1.1 200 OK|content-length: 5", BodyEncoder::Length(5), true),
            ),
            (
                response(200),
                Some(7),
                GET,
                ("HTTP/1.1 200 OK|content-length: 7", BodyEncoder::Length(7), true),
            ),
            (
                response(200),
                Some(0),
                GET,
                ("HTTP/1.1 200 OK|content-length: 0", BodyEncoder::Length(0), true),
            ),
            (
                response(200),
                None,
                GET,
                ("HTTP/1.1 200 OK|transfer-encoding: chunked", BodyEncoder::Chunked, true),
            ),
            (
                response(200),
                None,
                HTTP_10,
                ("HTTP/1.0 200 OK|connection: close", BodyEncoder::CloseDelimited, false),
            ),
            (
                with_length(404),
                None,
                HTTP_10,
                (
                    "HTTP/1.0 404 Not Found|content-length: 5|connection: keep-alive",
                    BodyEncoder::Length(5),
                    true,
                ),
            ),
            (with_length(200), Some(0), HEAD, ("HTTP/1.1 200 OK|content-length: 5", BodyEncoder::Done, true)),
            (response(200), Some(0), HEAD, ("HTTP/1.1 200 OK", BodyEncoder::Done, true)),
            (
                response(404),
                Some(7),
                HEAD,
                ("HTTP/1.1 404 Not Found|content-length: 7", BodyEncoder::Done, true),
            ),
            (response(200), None, HEAD, ("HTTP/1.1 200 OK", BodyEncoder::Done, true)),
            (with_length(204), Some(0), GET, ("HTTP/1.1 204 No Content", BodyEncoder::Done, true)),
            (
                with_length(304),
                Some(0),
                GET,
                ("HTTP/1.1 304 Not Modified|content-length: 5", BodyEncoder::Done, true),
            ),
            (response(304), Some(0), GET, ("HTTP/1.1 304 Not Modified", BodyEncoder::Done, true)),
            (
                with_length(200).header("connection", "close"),
                None,
                GET,
                ("HTTP/1.1 200 OK|content-length: 5|connection: close", BodyEncoder::Length(5), false),
            ),
            (
                response(101).header("connection", "upgrade").header("upgrade", "x"),
                Some(0),
                GET,
                ("HTTP/1.1 101 Switching Protocols|connection: upgrade|upgrade: x", BodyEncoder::Done, false),
            ),
            (with_length(299), None, GET, ("HTTP/1.1 299 |content-length: 5", BodyEncoder::Length(5), true)),
        ] {
            let (head, encoder, keep_alive) = expected;
            let head = format!("{}\r\n\r\n", head.replace('|', "\r\n"));
            assert_eq!(encoded(response, length, info), (head, encoder, keep_alive));
        }
    }

    #[test]
    fn a_response_without_a_date_gets_one() {
        let (parts, ()) = Response::new(()).into_parts();
        let mut out = Vec::new();
        encode(&mut out, &parts, Some(0), GET);
        let head = String::from_utf8(out).unwrap();
        let date = head.lines().find_map(|line| line.strip_prefix("date: ")).unwrap();
        let age = SystemTime::now().duration_since(httpdate::parse_http_date(date).unwrap()).unwrap();
        assert!(age.as_secs() < 60, "{head}");
    }
}
