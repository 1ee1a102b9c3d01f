//! Request smuggling: the cases of http-desync-guardian's tests as raw probes. Each request with an ambiguous length is
//! followed by bytes that a parser which ends it too early would take for another request.

use super::support::*;

/// The expected outcome of a case.
#[derive(Clone, Copy)]
enum Outcome {
    /// Refused with this status and cause. Neither the request nor the bytes after it reach an instance.
    Refused(u16, &'static str),
    /// The instance gets the request with this body, and the next one.
    One(&'static str),
}
use Outcome::{One, Refused};

const FRAMING: Outcome = Refused(400, "bad-framing");
const CODING: Outcome = Refused(501, "transfer-coding");

/// The request that a smuggler hides in the body of another.
const BEHIND: &str = "GET /svc/behind HTTP/1.1\r\nHost: a\r\n\r\n";

/// Header fields of a `POST` and the outcome. Bytes, since some are not UTF-8.
const FIELDS: &[(&[u8], Outcome)] = &[
    // Several or invalid lengths.
    (b"Content-Length: 1000\r\nContent-Length: 100", FRAMING),
    (b"Content-Length: 5\r\nContent-Length: 5", FRAMING),
    (b"Content-Length: 1000,1000", FRAMING),
    (b"Content-Length: 1000 1000", FRAMING),
    (b"Content-Length: 1000.1000", FRAMING),
    (b"Content-Length: 18446744073709551616", FRAMING),
    (b"Content-Length: 1000\x11", FRAMING),
    (b"Content-Length: \x01 5", FRAMING),
    (b"Content-Length: 5\xa0", FRAMING),
    (b"Content-Length: -5", FRAMING),
    (b"Content-Length: +5", FRAMING),
    (b"Content-Length: 0x5", FRAMING),
    (b"Content-Length:", FRAMING),
    // A length and a coding.
    (b"Transfer-Encoding: chunked\r\nContent-Length: 100", FRAMING),
    (b"Content-Length: 4\r\nTransfer-Encoding: chunked", FRAMING),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\nContent-Length: 4", CODING),
    (b"Transfer-Encoding: gzip\r\nContent-Length: 100", CODING),
    // Codings that another server might read as chunked.
    (b"Transfer-Encoding: xchunked", CODING),
    (b"Transfer-Encoding: chunked\x11", FRAMING),
    (b"Transfer-Encoding: \x01chunked", FRAMING),
    (b"Transfer-Encoding: \xa0chunked", CODING),
    (b"Transfer-Encoding: chunked\xa0", CODING),
    (b"Transfer-Encoding: chunked\0", FRAMING),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", CODING),
    (b"Transfer-Encoding: chunked,chunked", CODING),
    (b"Transfer-Encoding: chunked, identity", CODING),
    (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: deflate\r\nTransfer-Encoding: chunked", CODING),
    (b"Transfer-Encoding: gzip, chunked", CODING),
    (b"Transfer-Encoding: \"chunked\"", CODING),
    (b"Transfer-Encoding: 'chunked'", CODING),
    (b"Transfer-Encoding: chunked;q=1", CODING),
    (b"Transfer-Encoding:", CODING),
    // Names that another server might read as a framing field.
    (b"Content-Length : 5", FRAMING),
    (b"Content-Length\t: 5", FRAMING),
    (b" Content-Length: 5", FRAMING),
    (b"Content-Length : 100\r\nContent-Length: 1000", FRAMING),
    (b" Content-Length: 100\r\nContent-Length: 1000", FRAMING),
    (b"Transfer-Encoding : chunked", FRAMING),
    (b"Transfer-Encoding\t: chunked", FRAMING),
    (b"Transfer-Encoding : chunked\r\nTransfer-Encoding: chunked", FRAMING),
    (b"Transfer-Encoding : chunked\r\nContent-Length: 1000", FRAMING),
    (b" Transfer-Encoding: chunked\r\n Content-Length: 1000", FRAMING),
    (b"Transfer-Encoding : chunked\r\nContent-Length : 1000", FRAMING),
    (b"\x01Transfer-Encoding: chunked", FRAMING),
    (b"\x01\x01Content-Length: 1", FRAMING),
    (b"Transfer-Encoding\x01: chunked", FRAMING),
    (b"Transfer-Encoding\0: chunked", FRAMING),
    (b"Transfer- Encoding: chunked", FRAMING),
    (b"Transfer_Encoding: chunked", FRAMING),
    (b"Content_Length: 1000", FRAMING),
    (b"Transfer---Encoding: chunked", FRAMING),
    (b"Transfer___Encoding: chunked", FRAMING),
    (b"Transfer.Encoding: chunked", FRAMING),
    (b"Tran\xc5\xbffer-Encoding: chunked", FRAMING), // a long s
    (b"Transfer-Encod\xc4\xb1ng: chunked", FRAMING), // an i without its dot
    (b"\xe2\x80\x83Transfer-Encoding: chunked", FRAMING), // spaces of Unicode
    (b"Content-Length\xe2\x80\x83: 1000", FRAMING),
    (b"Transfer\xe2\x80\x90Encoding: chunked", FRAMING), // a hyphen of Unicode
    // Heads with a seam in them.
    (b": chunked\r\nContent-Length: 1000", FRAMING),
    (b":SomeHeader:Transfer-Encoding:: chunked\r\nContent-Length: 1000", FRAMING),
    (b"   \t\t  : chunked\r\nContent-Length: 1000", FRAMING),
    (b"Content-Length: 1000\r\nX: two\r\n lines\r\n", FRAMING),
    (b"Content-Length: 1000\r\nX: one\n Transfer-Encoding: chunked", FRAMING),
    (b"Content-Length: 1000\r\nX: one\nTransfer-Encoding: chunked", FRAMING),
    (b"Content-Length: 1000\r\nX: one\rTransfer-Encoding: chunked", FRAMING),
    (b"X\r: 1000", FRAMING),
    (b"X\n: Content-Length:1000\r\n Transfer-Encoding: chunked\r\nContent-Length: 100", FRAMING),
    (b"X\0: 1000", FRAMING),
    (b"X: a\0content-length: 1000\r\nContent-Length: 100", FRAMING),
    (b"\0X: a\r\nContent-Length: 100", FRAMING),
    (b"X: \0a\r\nContent-Length: 100", FRAMING),
    (b"X: a\0\r\nContent-Length: 100", FRAMING),
    (b"x-mine : a\r\nContent-Length: 5", FRAMING),
    (b"\x01x-mine: a\r\nTransfer-Encoding: chunked", FRAMING),
    // Unusual but valid.
    (b"X: 1", One("")),
    (b"Content-Length: 0", One("")),
    (b"Content-Length: 05", One("12345")),
    (b"Content-Length:  5  ", One("12345")),
    (b"CONTENT-LENGTH:5", One("12345")),
    (b"Transfer-Encoding: chunked", One("5\r\n12345\r\n0\r\n\r\n")),
    (b"transfer-encoding: \t Chunked \t", One("5\r\n12345\r\n0\r\n\r\n")),
    (b"X.!#$%&'*+^_`|~09: \t\ta;\x60\x85\x93\xa0\r\nContent-Length: 5", One("12345")),
    (b"X_Y.Z: Transfer-Encoding: chunked\r\nContent-Length: 5", One("12345")),
];

#[tokio::test]
async fn ambiguous_fields_are_refused_and_unusual_ones_are_passed_on() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::with("svc", &instance).await;
    for (fields, outcome) in FIELDS {
        // A server that ends the request too early would take this body for the next request.
        let body = if let One(body) = outcome { body } else { "" };
        let head = [b"POST /svc HTTP/1.1\r\nHost: a\r\n", *fields, b"\r\n\r\n"].concat();
        check(&gateway, &instance, &[&head, body.as_bytes()].concat(), *outcome).await;
    }
}

#[tokio::test]
async fn ambiguous_request_lines_are_refused_and_valid_ones_are_passed_on() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::with("svc", &instance).await;
    let coded = "Host: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (request, outcome) in [
        (format!("POST /svc HTTP/1.0\r\n{coded}0\r\n\r\n"), FRAMING),
        (format!("POST /svc HTTP/0.9\r\n{coded}0\r\n\r\n"), Refused(505, "http-version")),
        (
            "POST /svc HTTP/0.9\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345".into(),
            Refused(505, "http-version"),
        ),
        (format!("POST /svc\r\n{coded}0\r\n\r\n"), FRAMING),
        ("GET /svc\r\nX: 1\r\n\r\n".into(), FRAMING),
        ("GET /svc HTTP/1.2\r\nHost: a\r\n\r\n".into(), Refused(505, "http-version")),
        ("bad\x01method /svc HTTP/1.1\r\nHost: a\r\n\r\n".into(), FRAMING),
        ("GET /svc\tHTTP/1.1\r\nHost: a\r\n\r\n".into(), FRAMING),
        ("GET /svc HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n".into(), FRAMING),
        ("GET /svc\x01 HTTP/1.1\r\nHost: a\r\n\r\n".into(), FRAMING),
        ("GET /svc\r\nX: HTTP/1.1\r\nHost: a\r\n\r\n".into(), FRAMING),
        ("GET /svc?a=b&%dd=%ee HTTP/1.1\r\nHost: a\r\n\r\n".into(), One("")),
        ("GET /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345".into(), One("12345")),
        (format!("GET /svc HTTP/1.1\r\n{coded}0\r\n\r\n"), One("0\r\n\r\n")),
        ("DELETE /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345".into(), One("12345")),
    ] {
        check(&gateway, &instance, request.as_bytes(), outcome).await;
    }
}

async fn check(gateway: &Gateway, instance: &FakeInstance, request: &[u8], outcome: Outcome) {
    let shown = String::from_utf8_lossy(request);
    instance.seen.lock().unwrap().clear();
    let mut raw = gateway.connect().await;
    raw.write([request, BEHIND.as_bytes()].concat()).await;
    match outcome {
        Refused(code, cause) => {
            let response = raw.read_to_end().await;
            assert_eq!(
                (status(&response), &problem(&response)["cause"]),
                (code, &cause.into()),
                "{shown:?}: {response}"
            );
            assert_eq!(instance.requests(), Vec::<String>::new(), "{shown:?}");
        }
        One(body) => {
            let responses = raw.read_until(|text| text.matches("hello").count() == 2).await;
            assert_eq!(responses.matches("HTTP/1.1 200 OK").count(), 2, "{shown:?}: {responses}");
            let seen = instance.requests();
            assert_eq!(seen.len(), 2, "{shown:?}: {seen:?}");
            assert_eq!(seen[0].split_once("\r\n\r\n").unwrap().1, body, "{shown:?}");
            assert!(seen[1].starts_with("GET /svc/behind HTTP/1.1\r\n"), "{shown:?}: {seen:?}");
        }
    }
}
