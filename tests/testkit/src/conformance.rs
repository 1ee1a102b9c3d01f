//! What every HTTP/1 server must do, by the sections of the RFCs: the requests that h1spec sends, and others that two
//! servers could read differently. For the gateway and for services alike: no case depends on what is served.
//!
//! One file, although it is long, because it is one table.

use std::net::SocketAddr;
use std::time::Duration;

use self::Expected::{Answered, AtMostOne, Refused};
use crate::raw::{self, RawConn};

/// One claim.
#[derive(Debug, Clone, Copy)]
pub struct Http1Case {
    /// The RFC and its section.
    pub section: &'static str,
    /// What the server must do.
    pub name: &'static str,
    /// What is sent, in pieces with a pause between them. The server closes the connection after the last response.
    pub request: &'static [&'static str],
    /// The responses.
    pub expected: Expected,
}

/// The responses to a case. Interim responses are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// So many, none of which says that the request was not understood.
    Answered(usize),
    /// One with one of these statuses, or none.
    Refused(&'static [u16]),
    /// One or none: what follows the request is not read.
    AtMostOne,
}

/// The statuses that say that a request was not understood.
const NOT_UNDERSTOOD: [u16; 7] = [400, 411, 413, 414, 431, 501, 505];
/// The pause between two pieces.
const PAUSE: Duration = Duration::from_millis(5);

impl Http1Case {
    /// Sends the case to a server.
    ///
    /// # Errors
    /// What was read, if it is not what was expected.
    pub async fn run(&self, server: SocketAddr) -> Result<(), String> {
        let mut conn = RawConn::connect(server).await;
        for (n, piece) in self.request.iter().enumerate() {
            if n > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let _ = tokio::io::AsyncWriteExt::write_all(&mut conn.stream, piece.as_bytes()).await; // or it has refused
        }
        let (read, ended) = conn.try_read_until(|_| false).await;
        let heads = read.match_indices("HTTP/1.").map(|(at, _)| raw::status(&read[at..]));
        let statuses: Vec<u16> = heads.filter(|status| *status >= 200).collect();
        let holds = match self.expected {
            Answered(count) => {
                statuses.len() == count && !statuses.iter().any(|it| NOT_UNDERSTOOD.contains(it))
            }
            Refused(allowed) => statuses.len() <= 1 && statuses.iter().all(|status| allowed.contains(status)),
            AtMostOne => statuses.len() <= 1,
        };
        let has_body = read.split_once("\r\n\r\n").is_some_and(|(_, body)| !body.is_empty());
        if holds && !(self.request[0].starts_with("HEAD ") && has_body) {
            return Ok(());
        }
        Err(format!(
            "{}: {}: {:?} expected after {:?}: {read:?}, and then {ended:?}",
            self.section, self.name, self.expected, self.request
        ))
    }
}

const fn case(
    section: &'static str,
    name: &'static str,
    request: &'static [&'static str],
    expected: Expected,
) -> Http1Case {
    Http1Case { section, name, request, expected }
}

/// A request that would be answered, behind one that must not be.
macro_rules! and_another {
    ($request:expr) => {
        concat!($request, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    };
}

/// A `GET` with further fields, the last one on its connection.
macro_rules! get {
    ($fields:expr) => {
        concat!("GET / HTTP/1.1\r\nHost: localhost\r\n", $fields, "Connection: close\r\n\r\n")
    };
}

/// A `POST` with further fields and a body, the last one on its connection.
macro_rules! post {
    ($fields:expr, $body:expr) => {
        concat!("POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", $fields, "\r\n", $body)
    };
}

const MESSAGE: &str = "RFC 9112, 2.2";
const VERSION: &str = "RFC 9112, 2.3";
const REQUEST_LINE: &str = "RFC 9112, 3";
const HOST: &str = "RFC 9112, 3.2";
const TARGET: &str = "RFC 9112, 3.2";
const FIELD: &str = "RFC 9112, 5";
const VALUE: &str = "RFC 9110, 5.5";
const CODING: &str = "RFC 9112, 6.1";
const LENGTH: &str = "RFC 9112, 6.2";
const CHUNKS: &str = "RFC 9112, 7.1";
const PERSISTENCE: &str = "RFC 9112, 9.3";

/// The cases.
pub const HTTP1: &[Http1Case] = &[
    case(REQUEST_LINE, "answers a request", &[get!("")], Answered(1)),
    case(MESSAGE, "ignores an empty line before a request", &[concat!("\r\n", get!(""))], Answered(1)),
    case(
        MESSAGE,
        "reads a request in pieces: method",
        &["G", "ET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"],
        Answered(1),
    ),
    case(
        MESSAGE,
        "reads a request in pieces: target",
        &["GET ", "/", " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"],
        Answered(1),
    ),
    case(
        MESSAGE,
        "reads a request in pieces: version",
        &["GET / HT", "TP/1.", "1\r\nHost: localhost\r\nConnection: close\r\n\r\n"],
        Answered(1),
    ),
    case(
        MESSAGE,
        "reads a request in pieces: line ends",
        &["GET / HTTP/1.1\r", "\nHost: localhost\r\nConnection: close\r", "\n\r", "\n"],
        Answered(1),
    ),
    case(
        MESSAGE,
        "reads a request in pieces: name",
        &["GET / HTTP/1.1\r\nHo", "st: localhost\r\nConnection: close\r\n\r\n"],
        Answered(1),
    ),
    case(
        MESSAGE,
        "reads a request in pieces: value",
        &["GET / HTTP/1.1\r\nHost", ":", " ", "local", "host", "\r\nConnection: close\r\n\r\n"],
        Answered(1),
    ),
    case(
        MESSAGE,
        "refuses white space before the first field",
        &["GET / HTTP/1.1\r\n Host: localhost\r\nConnection: close\r\n\r\n"],
        Refused(&[400]),
    ),
    case(
        MESSAGE,
        "refuses a bare CR in the request line",
        &["GET /\r HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"],
        Refused(&[400]),
    ),
    case(MESSAGE, "refuses a bare CR in a field", &[get!("X: a\rb\r\n")], Refused(&[400])),
    case(
        VERSION,
        "compares the version with case",
        &["GET / http/1.1\r\nHost: localhost\r\n\r\n"],
        Refused(&[400, 505]),
    ),
    case(
        VERSION,
        "refuses a version with one number",
        &["GET / HTTP/1\r\nHost: localhost\r\n\r\n"],
        Refused(&[400, 505]),
    ),
    case(
        VERSION,
        "refuses a version with two digits",
        &["GET / HTTP/1.10\r\nHost: localhost\r\n\r\n"],
        Refused(&[400, 505]),
    ),
    case(
        VERSION,
        "refuses a version without a number",
        &["GET / HTTP/x.y\r\nHost: localhost\r\n\r\n"],
        Refused(&[400, 505]),
    ),
    case(
        VERSION,
        "refuses a later version",
        &["GET / HTTP/3.0\r\nHost: localhost\r\n\r\n"],
        Refused(&[400, 505]),
    ),
    case(
        REQUEST_LINE,
        "refuses a line without a version",
        &["GET /\r\nHost: localhost\r\n\r\n"],
        Refused(&[400, 505]),
    ),
    case(
        REQUEST_LINE,
        "refuses a line with a part too many",
        &["GET / x HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        Refused(&[400, 505]), // the part may be read as a version
    ),
    case(
        REQUEST_LINE,
        "refuses a line that begins with a space",
        &[" GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        Refused(&[400]),
    ),
    case(
        "RFC 9110, 9.1",
        "refuses a method that is not a token",
        &["G(T / HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        Refused(&[400, 501]),
    ),
    case(
        "RFC 9110, 9.1",
        "compares methods with case",
        &["get / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"],
        Refused(&[400, 404, 405, 501]),
    ),
    case(
        "RFC 9110, 9.3.2",
        "sends no body for HEAD",
        &["HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"],
        Answered(1),
    ),
    case(
        "RFC 9110, 9.3.2",
        "sends no body for HEAD of nothing",
        &["HEAD /nothing/here HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"],
        Answered(1),
    ),
    case(
        HOST,
        "refuses a request without Host",
        &["GET / HTTP/1.1\r\nConnection: close\r\n\r\n"],
        Refused(&[400]),
    ),
    case(
        HOST,
        "refuses two Hosts",
        &["GET / HTTP/1.1\r\nHost: localhost\r\nHost: example.org\r\nConnection: close\r\n\r\n"],
        Refused(&[400]),
    ),
    case(
        HOST,
        "refuses the same Host twice",
        &["GET / HTTP/1.1\r\nHost: localhost\r\nhost: localhost\r\nConnection: close\r\n\r\n"],
        Refused(&[400]),
    ),
    case(
        HOST,
        "refuses an invalid Host",
        &["GET / HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n"],
        Refused(&[400]),
    ),
    case(
        HOST,
        "refuses a Host with a user",
        &["GET / HTTP/1.1\r\nHost: user@localhost\r\nConnection: close\r\n\r\n"],
        Refused(&[400]),
    ),
    case(
        HOST,
        "refuses a Host with a path",
        &["GET / HTTP/1.1\r\nHost: localhost/x\r\nConnection: close\r\n\r\n"],
        Refused(&[400]),
    ),
    case(HOST, "needs no Host in HTTP/1.0", &["GET / HTTP/1.0\r\n\r\n"], Answered(1)),
    case(
        TARGET,
        "refuses a target without a slash",
        &["GET x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"],
        Refused(&[400]),
    ),
    case(
        "RFC 9112, 3.2.2",
        "accepts the absolute form",
        &["GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"],
        Answered(1),
    ),
    case(
        "RFC 9112, 3.2.2",
        "refuses the absolute form without Host",
        &["GET http://localhost/ HTTP/1.1\r\nConnection: close\r\n\r\n"],
        Refused(&[400]),
    ),
    case(
        "RFC 9112, 3.2.3",
        "is no tunnel",
        &["CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n\r\n"],
        Refused(&[400, 404, 405, 421, 501]),
    ),
    case("RFC 9112, 5.1", "refuses white space before a colon", &[get!("X : 1\r\n")], Refused(&[400])),
    case(
        "RFC 9112, 5.1",
        "refuses white space before Host's colon",
        &["GET / HTTP/1.1\r\nHost : localhost\r\nConnection: close\r\n\r\n"],
        Refused(&[400]),
    ),
    case("RFC 9112, 5.2", "refuses a folded line", &[get!("X: a\r\n b\r\n")], Refused(&[400])),
    case(FIELD, "refuses a name that is not a token", &[get!("X(y): 1\r\n")], Refused(&[400])),
    case(FIELD, "refuses an empty name", &[get!(": 1\r\n")], Refused(&[400])),
    case(FIELD, "refuses a line without a colon", &[get!("X\r\n")], Refused(&[400])),
    case(VALUE, "refuses a NUL", &[get!("X: a\0b\r\n")], Refused(&[400])),
    case(VALUE, "refuses a control character", &[get!("X: a\x01b\r\n")], Refused(&[400])),
    case(VALUE, "accepts an empty value", &[get!("X:\r\n")], Answered(1)),
    case(VALUE, "accepts white space around a value", &[get!("X: \t a\tb \t\r\n")], Answered(1)),
    case(VALUE, "accepts obs-text", &[get!("X: \u{e9}\r\n")], Answered(1)),
    case(
        CODING,
        "refuses a coding after chunked",
        &[and_another!(post!("Transfer-Encoding: chunked, gzip\r\n", ""))],
        Refused(&[400, 501]),
    ),
    case(
        CODING,
        "refuses an unknown coding",
        &[and_another!(post!("Transfer-Encoding: xchunked\r\n", ""))],
        Refused(&[400, 501]),
    ),
    case(
        CODING,
        "refuses a coding that is not the last",
        &[and_another!(post!("Transfer-Encoding: gzip\r\n", ""))],
        Refused(&[400, 501]),
    ),
    case(
        CODING,
        "reads one body if there is also a length",
        &[and_another!(post!("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"))],
        AtMostOne,
    ),
    case(
        CODING,
        "reads no chunks in HTTP/1.0",
        &[and_another!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")],
        AtMostOne,
    ),
    case(
        CODING,
        "accepts chunks",
        &[post!("Transfer-Encoding: chunked\r\n", "4\r\nbody\r\n0\r\n\r\n")],
        Answered(1),
    ),
    case(
        CODING,
        "compares codings without case",
        &[post!("Transfer-Encoding: CHUNKED\r\n", "4\r\nbody\r\n0\r\n\r\n")],
        Answered(1),
    ),
    case(LENGTH, "accepts a length", &[post!("Content-Length: 4\r\n", "body")], Answered(1)),
    case(
        LENGTH,
        "refuses a negative length",
        &[and_another!(post!("Content-Length: -1\r\n", ""))],
        Refused(&[400]),
    ),
    case(LENGTH, "refuses a sign", &[and_another!(post!("Content-Length: +4\r\n", "body"))], Refused(&[400])),
    case(
        LENGTH,
        "refuses another base",
        &[and_another!(post!("Content-Length: 0x4\r\n", "body"))],
        Refused(&[400]),
    ),
    case(
        LENGTH,
        "refuses a length that is not a number",
        &[and_another!(post!("Content-Length: four\r\n", "body"))],
        Refused(&[400]),
    ),
    case(
        LENGTH,
        "refuses an empty length",
        &[and_another!(post!("Content-Length:\r\n", ""))],
        Refused(&[400]),
    ),
    case(
        LENGTH,
        "refuses a length that overflows",
        &[and_another!(post!("Content-Length: 99999999999999999999\r\n", ""))],
        Refused(&[400, 413]),
    ),
    case(
        LENGTH,
        "refuses a negative length that overflows",
        &[and_another!(post!("Content-Length: -18446744073709551615\r\n", ""))],
        Refused(&[400]),
    ),
    case(
        LENGTH,
        "refuses two lengths",
        &[and_another!(post!("Content-Length: 4\r\nContent-Length: 5\r\n", "body"))],
        Refused(&[400]),
    ),
    case(
        LENGTH,
        "refuses two lengths in a list",
        &[and_another!(post!("Content-Length: 4, 5\r\n", "body"))],
        Refused(&[400]),
    ),
    case(
        CHUNKS,
        "ignores a chunk's extensions",
        &[post!("Transfer-Encoding: chunked\r\n", "4;a=b;c=\"d\"\r\nbody\r\n0\r\n\r\n")],
        Answered(1),
    ),
    case(
        CHUNKS,
        "accepts trailers",
        &[post!("Transfer-Encoding: chunked\r\n", "4\r\nbody\r\n0\r\nX: y\r\n\r\n")],
        Answered(1),
    ),
    case(
        CHUNKS,
        "accepts digits of both cases and zeros",
        &[post!("Transfer-Encoding: chunked\r\n", "00a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n")],
        Answered(1),
    ),
    case(
        CHUNKS,
        "reads chunks in pieces",
        &[post!("Transfer-Encoding: chunked\r\n", "4"), "\r", "\nbo", "dy\r\n", "0\r\n", "\r\n"],
        Answered(1),
    ),
    case(
        CHUNKS,
        "reads nothing behind an invalid size",
        &[and_another!(post!("Transfer-Encoding: chunked\r\n", "x\r\n\r\n0\r\n\r\n"))],
        AtMostOne,
    ),
    case(
        CHUNKS,
        "reads nothing behind a negative size",
        &[and_another!(post!("Transfer-Encoding: chunked\r\n", "-1\r\n\r\n0\r\n\r\n"))],
        AtMostOne,
    ),
    case(
        CHUNKS,
        "reads nothing behind a size that overflows",
        &[and_another!(post!("Transfer-Encoding: chunked\r\n", "10000000000000000\r\n\r\n0\r\n\r\n"))],
        AtMostOne,
    ),
    case(
        CHUNKS,
        "reads nothing behind a chunk that is too long",
        &[and_another!(post!("Transfer-Encoding: chunked\r\n", "2\r\nbody\r\n0\r\n\r\n"))],
        AtMostOne,
    ),
    case(
        PERSISTENCE,
        "keeps the connection, and answers in order",
        &[and_another!("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")],
        Answered(2),
    ),
    case(
        PERSISTENCE,
        "answers a request behind a body",
        &[and_another!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody")],
        Answered(2),
    ),
    case(
        PERSISTENCE,
        "closes an HTTP/1.0 connection",
        &["GET / HTTP/1.0\r\nHost: localhost\r\n\r\nGET / HTTP/1.0\r\nHost: localhost\r\n\r\n"],
        Answered(1),
    ),
    case("RFC 9112, 9.6", "closes when asked to", &[and_another!(get!(""))], Answered(1)),
    case(
        "RFC 9110, 10.1.1",
        "answers a request with Expect",
        &[post!("Expect: 100-continue\r\nContent-Length: 4\r\n", ""), "body"],
        Answered(1),
    ),
];
