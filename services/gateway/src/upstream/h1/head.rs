//! Heads of messages between the gateway and an instance: a request's to bytes, a reply's from bytes. Pure.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Response, StatusCode};
use httparse::Status;

use super::Broken;
use crate::http1::decoder::Decoder;
use crate::http1::encoder::{Encoder, write_fields};
use crate::http1::fields::{self, ConnectionOptions};
use crate::http1::length;

/// Longest head of a reply, in bytes.
pub(super) const MAX_SIZE: usize = 64 << 10;
/// Most fields in it.
const MAX_FIELDS: usize = 128;
/// Room for a head that no usual request exceeds.
const USUAL_SIZE: usize = 512;

/// Writes a request's head and says how its body is to be framed. The fields are written as they are; the body is as
/// long as a `Content-Length` among them says, or in chunks.
pub(super) fn encode(
    out: &mut Vec<u8>,
    method: &Method,
    path: &PathAndQuery,
    headers: &HeaderMap,
    has_body: bool,
) -> Encoder {
    out.reserve(USUAL_SIZE);
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(path.as_str().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(out, headers);
    let encoder = if has_body {
        let length = headers.get(CONTENT_LENGTH).and_then(|value| length(value.as_bytes()));
        length.map_or(Encoder::Chunked, Encoder::Length)
    } else {
        Encoder::None
    };
    if encoder == Encoder::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
    encoder
}

/// A reply's head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) body: Decoder,
    /// Whether the connection may go on after the body.
    pub(super) keep_alive: bool,
}

/// Takes a reply's head off the front of `bytes`; `None` where it is not complete yet.
///
/// # Errors
/// Where it is not HTTP/1, or says of its body's length what can be read in two ways (RFC 9112, 6.3).
pub(super) fn parse(bytes: &mut Bytes, head_only: bool) -> Result<Option<Head>, Broken> {
    let source = bytes.clone();
    let mut room = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let size = match config.parse_response_with_uninit_headers(&mut parsed, &source, &mut room) {
        Ok(Status::Complete(size)) => size,
        Ok(Status::Partial) => return Ok(None),
        Err(_) => return Err(Broken::Reply("its head can't be parsed")),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Broken::Reply("it has no valid status"))?;
    let mut response = Response::new(());
    *response.status_mut() = status;
    let reason =
        parsed.reason.filter(|reason| !reason.is_empty() && Some(*reason) != status.canonical_reason());
    if let Some(Ok(reason)) = reason.map(|reason| hyper::ext::ReasonPhrase::try_from(reason.as_bytes())) {
        response.extensions_mut().insert(reason);
    }
    let mut said = Said::default();
    // One more is added on the way.
    let mut headers = fields::take(parsed.headers.len() + 1);
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        // A view of the bytes that are here already, not a copy.
        let value = HeaderValue::from_maybe_shared(source.slice_ref(field.value));
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(Broken::Reply("a field of its head is not valid"));
        };
        if said.hear(&name, value.as_bytes())? {
            headers.append(name, value);
        }
    }
    if let (Some(length), true) = (said.length, said.is_repeated) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.headers_mut() = headers;
    let is_http_10 = parsed.version == Some(0);
    let _ = bytes.split_to(size);
    let has_no_body = head_only
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let body = match (said.chunked, said.length) {
        _ if has_no_body => Decoder::Over,
        (Some(_), _) if is_http_10 => return Err(Broken::Reply("HTTP/1.0 knows no transfer codings")),
        (Some(false), _) => return Err(Broken::Reply("its transfer coding is not chunked")),
        (Some(true), _) => Decoder::chunked(),
        (None, Some(length)) => Decoder::of_length(length),
        (None, None) => Decoder::UntilEnd,
    };
    // Both at once is how replies are smuggled: the chunks count, and nothing follows on this connection.
    let two_lengths = said.chunked.is_some() && said.length.is_some();
    let lasts = !said.close && (!is_http_10 || said.keep_alive);
    let keep_alive = lasts && !two_lengths && !matches!(body, Decoder::UntilEnd);
    Ok(Some(Head { response, body, keep_alive }))
}

/// What a head says of its body and of the connection.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    /// It says its length more than once.
    is_repeated: bool,
    /// Whether the one transfer coding is `chunked`.
    chunked: Option<bool>,
    close: bool,
    keep_alive: bool,
}

impl Said {
    /// Hears one field. False where it was for this connection alone.
    fn hear(&mut self, name: &HeaderName, value: &[u8]) -> Result<bool, Broken> {
        if *name == CONTENT_LENGTH {
            // The same length again and again is what a proxy has joined.
            for one in value.split(|&b| b == b',') {
                let one = length(one.trim_ascii());
                if one.is_none() || self.length.is_some_and(|other| Some(other) != one) {
                    return Err(Broken::Reply("its Content-Length is not one number"));
                }
                self.is_repeated |= self.length.is_some();
                self.length = one;
            }
        } else if *name == TRANSFER_ENCODING {
            let is_first = self.chunked.is_none();
            self.chunked = Some(is_first && value.trim_ascii().eq_ignore_ascii_case(b"chunked"));
        } else if *name == CONNECTION {
            let options = ConnectionOptions::of(value);
            self.close |= options.close;
            self.keep_alive |= options.keep_alive;
            return Ok(options.other);
        }
        Ok(true)
    }
}
