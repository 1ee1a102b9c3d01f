//! A client's HTTP/1 head, judged on its raw bytes and read in the same pass. Pure.
//!
//! A parsed head no longer shows everything that a request smuggler needs, so what two parsers could read in two ways
//! is refused before there is a parsed head: bare line feeds, more than one length, a length beside a transfer coding,
//! framing fields in disguise. What is wrong is a [`Fault`], which the connection answers with a problem document before
//! it closes.
//!
//! Invariants: nothing behind a fault is ever read; a head that comes byte by byte costs no more than its length.
//! Left out: anything that the parsed head shows as well ([`super::host`] and the like).

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version, request};
use memchr::{memchr, memchr_iter};

use crate::http1::decoder::Decoder;
use crate::http1::fields::{self, ConnectionOptions};
use crate::http1::{self, end_of_head};

/// What is wrong with the bytes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the request head is malformed")]
    Syntax,
    #[error("a line of the request head ends without a carriage return")]
    BareLineFeed,
    #[error("the request target is malformed")]
    Target,
    #[error("the request target is too long")]
    TargetTooLong,
    #[error("the request head is too large")]
    HeadTooLarge,
    #[error("the request has too many header fields")]
    TooManyHeaders,
    #[error("only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here")]
    Version,
    #[error("the Content-Length is not one number")]
    ContentLength,
    #[error("a request can't have both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    #[error("HTTP/1.0 has no Transfer-Encoding")]
    CodingInOldVersion,
    #[error("a header field is a framing field in disguise")]
    Disguise,
    #[error("the only transfer coding here is chunked")]
    TransferCoding,
}

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// Bytes from the request line to the empty line.
    pub(crate) size: usize,
    /// Header fields.
    pub(crate) fields: usize,
    /// Bytes of the request target.
    pub(crate) target: usize,
}

/// Room for the fields that the gateway adds to a request.
const ADDED_FIELDS: usize = 6;

/// The most header fields that can be configured.
pub(crate) const MAX_FIELDS: usize = 256;

/// A request's head.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) parts: request::Parts,
    /// Where its body ends.
    pub(crate) body: Decoder,
    /// Whether the client wants the connection to go on.
    pub(crate) keep_alive: bool,
    /// Whether the client holds the body back until it is asked for it.
    pub(crate) holds_back: bool,
}

/// Reads the heads of one connection, one after the other.
#[derive(Debug)]
pub(crate) struct Heads {
    limits: HeadLimits,
    /// The beginning of a head whose end has not come yet.
    partial: Vec<u8>,
}

impl Heads {
    pub(crate) fn new(limits: HeadLimits) -> Self {
        Self { limits, partial: Vec::new() }
    }

    /// Whether a head has begun to arrive and is not complete.
    pub(crate) fn is_begun(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Takes a head off the front of `bytes`. `None` where its end has not come: all of them were taken then.
    ///
    /// # Errors
    /// The first fault. Nothing may be read after it.
    pub(crate) fn read(&mut self, bytes: &mut Bytes) -> Result<Option<Head>, Fault> {
        while !bytes.is_empty() {
            let before = self.partial.len();
            if before == 0
                && let Some((len, head)) = read_head(bytes, self.limits)?
            {
                // Split off, since what is merely advanced to its end, or cleared, still keeps the buffer that it is in.
                drop(bytes.split_to(len));
                return Ok(Some(head));
            }
            // Parse again only when the end has come, or a head sent byte by byte would cost its length squared.
            let Some(end) = end_of_head(&self.partial, bytes) else {
                self.keep(bytes)?;
                continue;
            };
            self.partial.extend_from_slice(&bytes[..end]);
            let whole = Bytes::from(std::mem::take(&mut self.partial));
            if let Some((len, head)) = read_head(&whole, self.limits)? {
                drop(bytes.split_to(len - before));
                return Ok(Some(head));
            }
            // Nothing but empty lines before the request line.
            check_lines(&whole)?;
            drop(bytes.split_to(end));
        }
        Ok(None)
    }

    /// Takes all of `bytes` as the beginning of a head, or more of it.
    fn keep(&mut self, bytes: &mut Bytes) -> Result<(), Fault> {
        if self.partial.len() + bytes.len() > self.limits.size {
            let line_ended = self.partial.iter().chain(&*bytes).take(self.limits.size).any(|&b| b == b'\n');
            return Err(if line_ended { Fault::HeadTooLarge } else { Fault::TargetTooLong });
        }
        self.partial.extend_from_slice(&std::mem::take(bytes));
        Ok(())
    }
}

/// Reads a head and says how long it is; `None` where its end has not come.
fn read_head(bytes: &Bytes, limits: HeadLimits) -> Result<Option<(usize, Head)>, Fault> {
    let mut room = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let room = room.get_mut(..limits.fields).unwrap_or_default();
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(bytes, room) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Fault::TooManyHeaders),
        Err(httparse::Error::Version) => return Err(Fault::Version),
        Err(_) => return Err(Fault::Syntax),
    };
    if len > limits.size {
        return Err(Fault::HeadTooLarge);
    }
    check_lines(&bytes[..len])?;
    let uri = target(request.path.unwrap_or_default(), bytes, limits)?;
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes());
    let version = if request.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let body = body(&request)?;
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri, parts.version) = (method.map_err(|_| Fault::Syntax)?, uri, version);
    parts.headers = fields::take(request.headers.len() + ADDED_FIELDS);
    let (mut close, mut lasts, mut expects) = (false, version == Version::HTTP_11, false);
    for field in request.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        // A view of the bytes that are here already, not a copy.
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        let (Ok(name), Ok(value)) = (name, value) else { return Err(Fault::Syntax) };
        if name == CONNECTION {
            let options = ConnectionOptions::of(value.as_bytes());
            close |= options.close;
            lasts |= options.keep_alive;
            if !options.other {
                continue; // that was all it had to say
            }
        }
        // Only these clients wait. An older one would take the interim reply for the final one (RFC 9110, 10.1.1).
        expects |= version == Version::HTTP_11
            && name == EXPECT
            && value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        parts.headers.append(name, value);
    }
    let holds_back = expects && !body.is_over();
    Ok(Some((len, Head { parts, body, keep_alive: lasts && !close, holds_back })))
}

fn check_lines(head: &[u8]) -> Result<(), Fault> {
    let is_bare = |at: usize| at == 0 || head.get(at - 1) != Some(&b'\r');
    if memchr_iter(b'\n', head).any(is_bare) { Err(Fault::BareLineFeed) } else { Ok(()) }
}

fn target(target: &str, bytes: &Bytes, limits: HeadLimits) -> Result<Uri, Fault> {
    if target.len() > limits.target {
        return Err(Fault::TargetTooLong);
    }
    // A fragment would be dropped in silence.
    if memchr(b'#', target.as_bytes()).is_some() {
        return Err(Fault::Target);
    }
    Uri::from_maybe_shared(bytes.slice_ref(target.as_bytes())).map_err(|_| Fault::Target)
}

/// The rules of RFC 9112, 6.3, without its leniencies.
fn body(request: &httparse::Request<'_, '_>) -> Result<Decoder, Fault> {
    let mut length = None;
    let mut chunked = false;
    for field in request.headers.iter() {
        match field.name.len() {
            14 if field.name.eq_ignore_ascii_case("content-length") => {
                if length.is_some() {
                    return Err(Fault::ContentLength);
                }
                // The two greatest values are marks for "chunked" and "until close" to many a server behind.
                let said = http1::length(field.value.trim_ascii()).filter(|&n| n < u64::MAX - 1);
                length = Some(said.ok_or(Fault::ContentLength)?);
            }
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                if request.version == Some(0) {
                    return Err(Fault::CodingInOldVersion);
                }
                if chunked || !field.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::TransferCoding);
                }
                chunked = true;
            }
            13.. if is_disguised(field.name) => return Err(Fault::Disguise),
            _ => {}
        }
    }
    match (chunked, length) {
        (true, Some(_)) => Err(Fault::LengthAndCoding),
        (true, None) => Ok(Decoder::chunked()),
        (false, length) => Ok(Decoder::of_length(length.unwrap_or(0))),
    }
}

/// Whether servers that take `_` for `-` (CGI and its heirs) would read this as a framing field.
pub(super) fn is_disguised(name: &str) -> bool {
    if !matches!(name.bytes().find(u8::is_ascii_alphanumeric), Some(b'c' | b'C' | b't' | b'T')) {
        return false;
    }
    let letters = || name.bytes().filter(u8::is_ascii_alphanumeric).map(|b| b.to_ascii_lowercase());
    letters().eq(*b"contentlength") || letters().eq(*b"transferencoding")
}

#[cfg(test)]
mod tests;
