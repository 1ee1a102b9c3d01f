//! Request heads, judged on their raw bytes and read in the same pass. Pure.
//!
//! A parsed head no longer shows everything that request smuggling uses. So a head that two parsers could read in two
//! ways is refused before there is a parsed one: bare line feeds, more than one length, a length beside a transfer
//! coding, framing fields in disguise.
//!
//! Invariants: nothing after an invalid head is ever read; a head that arrives byte by byte costs no more than its
//! length.
//! Not checked: whatever the parsed head shows as well (`Host`, the form of the target, the method).

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version, request};
use memchr::{memchr, memchr_iter};

use crate::decoder::BodyDecoder;
use crate::header_map;
use crate::syntax::{ConnectionOptions, end_of_head, is_disguised_framing_field, request_length};

/// Why a request head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// Not a request line followed by fields.
    #[error("the request head is malformed")]
    Syntax,
    /// A line ends with a line feed alone.
    #[error("a line of the request head ends without a carriage return")]
    BareLineFeed,
    /// The target is not a URI, or has a fragment.
    #[error("the request target is malformed")]
    Target,
    /// [`HeadLimits::target`].
    #[error("the request target is too long")]
    TargetTooLong,
    /// [`HeadLimits::size`].
    #[error("the request head is too large")]
    TooLarge,
    /// [`HeadLimits::fields`].
    #[error("the request has too many header fields")]
    TooManyFields,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("the HTTP version is not supported")]
    Version,
    /// A `Content-Length` that is repeated or not a number.
    #[error("the Content-Length is not a single number")]
    ContentLength,
    /// Two statements of where the body ends.
    #[error("a request can't have both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// `Transfer-Encoding` in HTTP/1.0.
    #[error("HTTP/1.0 has no Transfer-Encoding")]
    CodingInHttp10,
    /// A name such as `Content_Length`.
    #[error("a header field is a framing field in disguise")]
    DisguisedField,
    /// Any transfer coding but a single `chunked`.
    #[error("the only supported transfer coding is chunked")]
    TransferCoding,
}

/// How large a request head may be.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes from the request line to the empty line, both included.
    pub size: usize,
    /// Header fields. More than [`MAX_FIELDS`] counts as that.
    pub fields: usize,
    /// Bytes of the request target.
    pub target: usize,
}

impl Default for HeadLimits {
    /// 64 KiB, 100 fields, a target of 8 KiB.
    fn default() -> Self {
        Self { size: 64 << 10, fields: 100, target: 8 << 10 }
    }
}

/// Room for fields that a proxy adds to a request.
const ADDED_FIELDS: usize = 6;

/// The greatest [`HeadLimits::fields`].
pub const MAX_FIELDS: usize = 256;

/// A request head.
#[derive(Debug)]
#[non_exhaustive]
pub struct RequestHead {
    /// Method, target, version and fields. A `Connection` field with no other options than `close` and `keep-alive` is
    /// left out.
    pub parts: request::Parts,
    /// Where the body ends.
    pub body: BodyDecoder,
    /// Whether the client wants the connection to persist.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
}

/// Reads the request heads of one connection.
#[derive(Debug)]
pub struct RequestHeadReader {
    limits: HeadLimits,
    /// The beginning of an incomplete head.
    partial: Vec<u8>,
}

impl RequestHeadReader {
    /// A reader for a new connection.
    pub fn new(limits: HeadLimits) -> Self {
        let limits = HeadLimits { fields: limits.fields.min(MAX_FIELDS), ..limits };
        Self { limits, partial: Vec::new() }
    }

    /// Whether a head has begun to arrive and is incomplete.
    #[inline]
    pub fn is_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Memory that an incomplete head takes up, in bytes.
    #[inline]
    pub fn memory(&self) -> usize {
        self.partial.capacity()
    }

    /// Takes a head off the front of `bytes`. `None` if it is incomplete; the bytes are taken into the reader then.
    ///
    /// # Errors
    /// The first fault. Nothing may be read after it.
    pub fn read(&mut self, bytes: &mut Bytes) -> Result<Option<RequestHead>, HeadError> {
        while !bytes.is_empty() {
            let before = self.partial.len();
            if before == 0
                && let Some((len, head)) = parse(bytes, self.limits)?
            {
                // Split off: `Bytes` that are advanced to their end, or cleared, still keep the buffer that they are in.
                drop(bytes.split_to(len));
                return Ok(Some(head));
            }
            // Parsed again only at its end, or a head sent byte by byte would cost its length squared.
            let Some(end) = end_of_head(&self.partial, bytes) else {
                self.keep(bytes)?;
                continue;
            };
            self.partial.extend_from_slice(&bytes[..end]);
            let whole = Bytes::from(std::mem::take(&mut self.partial));
            if let Some((len, head)) = parse(&whole, self.limits)? {
                drop(bytes.split_to(len - before));
                return Ok(Some(head));
            }
            // Only empty lines before the request line.
            check_lines(&whole)?;
            drop(bytes.split_to(end));
        }
        Ok(None)
    }

    /// Takes all of `bytes` as part of an incomplete head.
    fn keep(&mut self, bytes: &mut Bytes) -> Result<(), HeadError> {
        if self.partial.len() + bytes.len() > self.limits.size {
            let has_line = self.partial.iter().chain(&*bytes).take(self.limits.size).any(|&b| b == b'\n');
            return Err(if has_line { HeadError::TooLarge } else { HeadError::TargetTooLong });
        }
        self.partial.extend_from_slice(&std::mem::take(bytes));
        Ok(())
    }
}

/// Parses a head, and returns it with its length; `None` if it is incomplete.
fn parse(bytes: &Bytes, limits: HeadLimits) -> Result<Option<(usize, RequestHead)>, HeadError> {
    let mut room = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let room = room.get_mut(..limits.fields).unwrap_or_default();
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(bytes, room) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyFields),
        Err(httparse::Error::Version) => return Err(HeadError::Version),
        Err(_) => return Err(HeadError::Syntax),
    };
    if len > limits.size {
        return Err(HeadError::TooLarge);
    }
    check_lines(&bytes[..len])?;
    let uri = target(request.path.unwrap_or_default(), bytes, limits)?;
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes());
    let version = if request.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let body = body(&request)?;
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri, parts.version) = (method.map_err(|_| HeadError::Syntax)?, uri, version);
    parts.headers = header_map::take(request.headers.len() + ADDED_FIELDS);
    let (mut close, mut persist, mut expects) = (false, version == Version::HTTP_11, false);
    for field in request.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        // A view of the bytes, not a copy.
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        let (Ok(name), Ok(value)) = (name, value) else { return Err(HeadError::Syntax) };
        if name == CONNECTION {
            let options = ConnectionOptions::parse(value.as_bytes());
            close |= options.close;
            persist |= options.keep_alive;
            if !options.other {
                continue;
            }
        }
        // An HTTP/1.0 client would take the interim response for the final one (RFC 9110, 10.1.1).
        expects |= version == Version::HTTP_11
            && name == EXPECT
            && value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        parts.headers.append(name, value);
    }
    let expect_continue = expects && !body.is_done();
    Ok(Some((len, RequestHead { parts, body, keep_alive: persist && !close, expect_continue })))
}

fn check_lines(head: &[u8]) -> Result<(), HeadError> {
    let is_bare = |at: usize| at == 0 || head.get(at - 1) != Some(&b'\r');
    if memchr_iter(b'\n', head).any(is_bare) { Err(HeadError::BareLineFeed) } else { Ok(()) }
}

fn target(target: &str, bytes: &Bytes, limits: HeadLimits) -> Result<Uri, HeadError> {
    if target.len() > limits.target {
        return Err(HeadError::TargetTooLong);
    }
    // `Uri` would drop a fragment silently.
    if memchr(b'#', target.as_bytes()).is_some() {
        return Err(HeadError::Target);
    }
    Uri::from_maybe_shared(bytes.slice_ref(target.as_bytes())).map_err(|_| HeadError::Target)
}

/// The rules of RFC 9112, 6.3, without its leniencies.
fn body(request: &httparse::Request<'_, '_>) -> Result<BodyDecoder, HeadError> {
    let mut length = None;
    let mut chunked = false;
    for field in request.headers.iter() {
        match field.name.len() {
            14 if field.name.eq_ignore_ascii_case("content-length") => {
                if length.is_some() {
                    return Err(HeadError::ContentLength);
                }
                let value = request_length(field.value.trim_ascii());
                length = Some(value.ok_or(HeadError::ContentLength)?);
            }
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                if request.version == Some(0) {
                    return Err(HeadError::CodingInHttp10);
                }
                if chunked || !field.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::TransferCoding);
                }
                chunked = true;
            }
            13.. if is_disguised_framing_field(field.name) => return Err(HeadError::DisguisedField),
            _ => {}
        }
    }
    match (chunked, length) {
        (true, Some(_)) => Err(HeadError::LengthAndCoding),
        (true, None) => Ok(BodyDecoder::chunked()),
        (false, length) => Ok(BodyDecoder::length(length.unwrap_or(0))),
    }
}
