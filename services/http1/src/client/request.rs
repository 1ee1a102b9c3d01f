//! A request's head onto the wire. Pure.

use http::header::CONTENT_LENGTH;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};

use crate::encoder::{BodyEncoder, write_fields};
use crate::syntax::content_length;

/// Room for most heads.
const USUAL_SIZE: usize = 512;

/// Writes a head, and returns how its body is framed: by a `Content-Length` among the fields, or in chunks.
pub(super) fn encode(
    out: &mut Vec<u8>,
    method: &Method,
    path: &PathAndQuery,
    headers: &HeaderMap,
    has_body: bool,
) -> BodyEncoder {
    out.reserve(USUAL_SIZE);
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(path.as_str().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(out, headers);
    let encoder = if has_body {
        let length = headers.get(CONTENT_LENGTH).and_then(|value| content_length(value.as_bytes()));
        length.map_or(BodyEncoder::Chunked, BodyEncoder::Length)
    } else {
        BodyEncoder::Done
    };
    if encoder == BodyEncoder::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
    encoder
}

#[cfg(test)]
mod tests {
    use http::header::{HOST, HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_request_is_written_with_the_framing_that_its_body_needs() {
        let encoded = |fields: &[(HeaderName, &'static str)], has_body| {
            let mut out = Vec::new();
            let path = PathAndQuery::from_static("/a?b=%2F");
            let headers =
                fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
            let encoder = encode(&mut out, &Method::POST, &path, &headers, has_body);
            (String::from_utf8(out).unwrap(), encoder)
        };
        let head = "POST /a?b=%2F HTTP/1.1\r\nhost: x\r\n";
        assert_eq!(encoded(&[(HOST, "x")], false), (format!("{head}\r\n"), BodyEncoder::Done));
        let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
        assert_eq!(encoded(&[(HOST, "x")], true), (chunked, BodyEncoder::Chunked));
        let with_length = format!("{head}content-length: 5\r\n\r\n");
        let fields = [(HOST, "x"), (CONTENT_LENGTH, "5")];
        assert_eq!(encoded(&fields, true), (with_length, BodyEncoder::Length(5)));
    }
}
