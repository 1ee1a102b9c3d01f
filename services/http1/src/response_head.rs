//! Response heads, read off their raw bytes. Pure.
//!
//! A server is trusted with its own response and with nothing else: a head that could be read in two ways is refused, or
//! no response may follow it on the connection. Whatever has only one reading is accepted: white space before a colon,
//! which a proxy must remove (RFC 9112, 5.1), or more than one space in the status line.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Response, StatusCode};
use httparse::Status;

use crate::chunked::InvalidChunk;
use crate::decoder::BodyDecoder;
use crate::header_map;
use crate::reason::ReasonPhrase;
use crate::syntax::{ConnectionOptions, content_length};

/// The largest response head, in bytes.
pub(crate) const MAX_HEAD_SIZE: usize = 64 << 10;
/// The most fields in it.
const MAX_HEAD_FIELDS: usize = 128;

/// Why a response is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidResponse {
    /// Not a status line followed by at most 128 fields.
    #[error("the head is malformed")]
    Syntax,
    /// Larger than 64 KiB.
    #[error("the head is too large")]
    TooLarge,
    /// Less than 100.
    #[error("the status is invalid")]
    Status,
    /// `Content-Length` fields that disagree or are not a number.
    #[error("the Content-Length is not a single number")]
    ContentLength,
    /// Any transfer coding but a single `chunked`.
    #[error("the transfer coding is not chunked")]
    TransferCoding,
    /// `Transfer-Encoding` in HTTP/1.0.
    #[error("HTTP/1.0 has no Transfer-Encoding")]
    CodingInHttp10,
    /// More than 32 before the final response, or more than 64 KiB of them.
    #[error("too many interim (1xx) responses")]
    TooManyInterim,
    /// The request did not ask for an upgrade.
    #[error("101 Switching Protocols was not asked for")]
    UnexpectedUpgrade,
    /// The body's chunks are invalid.
    #[error(transparent)]
    Chunk(#[from] InvalidChunk),
}

/// A response head.
#[derive(Debug)]
#[non_exhaustive]
pub struct ResponseHead {
    /// Status and fields, with a [`ReasonPhrase`] among the extensions if it is not the standard one. A `Connection`
    /// field with no other options than `close` and `keep-alive` is left out.
    pub response: Response<()>,
    /// Where the body ends.
    pub body: BodyDecoder,
    /// Whether the connection persists after the body.
    pub keep_alive: bool,
}

impl ResponseHead {
    /// Takes a head off the front of `bytes`; `None` if it is incomplete. `head_only`: the request was a `HEAD`.
    ///
    /// # Errors
    /// If it is not HTTP/1, or if the end of its body can be read in two ways (RFC 9112, 6.3).
    pub fn parse(bytes: &mut Bytes, head_only: bool) -> Result<Option<Self>, InvalidResponse> {
        let source = bytes.clone();
        let mut room = [const { MaybeUninit::uninit() }; MAX_HEAD_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let mut config = httparse::ParserConfig::default();
        config.allow_spaces_after_header_name_in_responses(true);
        config.allow_multiple_spaces_in_response_status_delimiters(true);
        let size = match config.parse_response_with_uninit_headers(&mut parsed, &source, &mut room) {
            Ok(Status::Complete(size)) => size,
            Ok(Status::Partial) => return Ok(None),
            Err(_) => return Err(InvalidResponse::Syntax),
        };
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(InvalidResponse::Status)?;
        let mut response = Response::new(());
        *response.status_mut() = status;
        let reason = parsed.reason.filter(|reason| Some(*reason) != status.canonical_reason());
        let reason = reason.and_then(|reason| ReasonPhrase::new(Bytes::copy_from_slice(reason.as_bytes())));
        if let Some(reason) = reason {
            response.extensions_mut().insert(reason);
        }
        let mut framing = Framing::default();
        // A proxy adds one.
        let mut headers = header_map::take(parsed.headers.len() + 1);
        for field in parsed.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            // A view of the bytes, not a copy.
            let value = HeaderValue::from_maybe_shared(source.slice_ref(field.value));
            let (Ok(name), Ok(value)) = (name, value) else { return Err(InvalidResponse::Syntax) };
            if framing.note(&name, value.as_bytes())? {
                headers.append(name, value);
            }
        }
        if let (Some(length), true) = (framing.length, framing.is_repeated) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        *response.headers_mut() = headers;
        let is_http_10 = parsed.version == Some(0);
        let _ = bytes.split_to(size);
        let body = framing.body(status, is_http_10, head_only)?;
        let persists = !framing.close && (!is_http_10 || framing.keep_alive);
        // Both at once is how responses are smuggled: the chunks count, and nothing may follow on this connection.
        let is_ambiguous = framing.chunked.is_some() && framing.length.is_some();
        let keep_alive = persists && !is_ambiguous && !matches!(body, BodyDecoder::CloseDelimited);
        Ok(Some(Self { response, body, keep_alive }))
    }
}

/// The fields that frame a response.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    is_repeated: bool,
    /// Whether the only transfer coding is `chunked`.
    chunked: Option<bool>,
    /// Whether there is a `Transfer-Encoding`, be it empty.
    has_coding: bool,
    close: bool,
    keep_alive: bool,
}

impl Framing {
    /// Notes one field. Returns whether the field is to be kept: one that concerns only this connection is not.
    fn note(&mut self, name: &HeaderName, value: &[u8]) -> Result<bool, InvalidResponse> {
        if *name == CONTENT_LENGTH {
            // A proxy may have joined repeated fields; they count if they agree (RFC 9112, 6.3).
            for one in value.split(|&b| b == b',') {
                let one = content_length(one.trim_ascii());
                if one.is_none() || self.length.is_some_and(|other| Some(other) != one) {
                    return Err(InvalidResponse::ContentLength);
                }
                self.is_repeated |= self.length.is_some();
                self.length = one;
            }
        } else if *name == TRANSFER_ENCODING {
            // Empty elements of a list count for nothing (RFC 9110, 5.6.1).
            let codings =
                value.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty());
            for coding in codings {
                self.chunked = Some(self.chunked.is_none() && coding.eq_ignore_ascii_case(b"chunked"));
            }
            self.has_coding = true;
        } else if *name == CONNECTION {
            let options = ConnectionOptions::parse(value);
            self.close |= options.close;
            self.keep_alive |= options.keep_alive;
            return Ok(options.other);
        }
        Ok(true)
    }

    fn body(
        &self,
        status: StatusCode,
        is_http_10: bool,
        head_only: bool,
    ) -> Result<BodyDecoder, InvalidResponse> {
        let has_no_body = head_only
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        match (self.chunked, self.length) {
            _ if has_no_body => Ok(BodyDecoder::Done),
            _ if self.has_coding && is_http_10 => Err(InvalidResponse::CodingInHttp10),
            _ if self.has_coding && self.chunked != Some(true) => Err(InvalidResponse::TransferCoding),
            (Some(_), _) => Ok(BodyDecoder::chunked_response()),
            (None, Some(length)) => Ok(BodyDecoder::length(length)),
            (None, None) => Ok(BodyDecoder::CloseDelimited),
        }
    }
}
