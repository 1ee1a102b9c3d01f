//! Where each HTTP/1 request begins and ends, judged on the raw bytes before the server's parser sees them. Pure.
//!
//! A parsed head no longer shows everything that a request smuggler needs: the parser drops a `Content-Length` beside
//! `Transfer-Encoding`, takes bare line feeds, and answers other faults by itself with an empty body. So the bytes of
//! every head pass through here first, and a head that two parsers could read in two ways never reaches the parser;
//! what became of it is a [`Fault`], which the connection answers with a problem document before it closes.
//!
//! Invariants: bytes are passed on in order and unchanged; nothing behind a fault is ever passed on; the cost of a
//! body with a length is one subtraction per read. Left out: anything that the parsed head shows as well.

use std::mem::MaybeUninit;

use http::Uri;
use memchr::{memchr, memchr_iter};

use super::chunks::Chunks;

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
    #[error("the chunked body is malformed")]
    Chunk,
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

/// The most header fields that can be configured.
pub(crate) const MAX_FIELDS: usize = 256;

/// The position in a stream of requests.
#[derive(Debug)]
pub(crate) struct Framing {
    limits: HeadLimits,
    state: State,
    /// The beginning of a head whose end has not come yet; already passed on.
    partial: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Head,
    Length(u64),
    Chunked(Chunks),
    Fault(Fault),
    /// No longer HTTP/1 requests: an upgraded connection, or HTTP/2.
    Opaque,
}

impl Framing {
    pub(crate) fn new(limits: HeadLimits) -> Self {
        Self { limits, state: State::Head, partial: Vec::new() }
    }

    /// From here on everything is passed on unseen.
    pub(crate) fn set_opaque(&mut self) {
        self.state = State::Opaque;
    }

    /// What stopped the stream.
    pub(crate) fn fault(&self) -> Option<Fault> {
        match self.state {
            State::Fault(fault) => Some(fault),
            _ => None,
        }
    }

    /// Whether a head has begun to arrive and is not complete.
    pub(crate) fn in_head(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Takes the next bytes and says how many of them, from the first, may be passed on. Fewer than all of them
    /// means that there is a fault.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while passed < bytes.len() {
            let rest = &bytes[passed..];
            let step = match &mut self.state {
                State::Opaque => Ok(rest.len()),
                State::Fault(_) => break,
                State::Head => self.head(rest),
                State::Length(left) => {
                    let step = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= step as u64;
                    if *left == 0 {
                        self.state = State::Head;
                    }
                    Ok(step)
                }
                State::Chunked(chunks) => {
                    let step = chunks.advance(rest);
                    if chunks.is_done() {
                        self.state = State::Head;
                    }
                    step
                }
            };
            match step {
                Ok(step) => passed += step,
                Err(fault) => self.state = State::Fault(fault),
            }
        }
        passed
    }

    /// Takes bytes of a head; says how many belonged to it.
    fn head(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        if self.partial.is_empty() {
            return match read_head(bytes, self.limits)? {
                Some((len, body)) => {
                    self.state = body;
                    Ok(len)
                }
                None => self.keep(bytes),
            };
        }
        // Parse again only when the end has come, or a head sent byte by byte would cost its length squared.
        let before = self.partial.len();
        let Some(end) = end_of_head(&self.partial, bytes) else { return self.keep(bytes) };
        let head_part = &bytes[..end];
        self.partial.extend_from_slice(head_part);
        match read_head(&self.partial, self.limits)? {
            Some((len, body)) => {
                self.partial = Vec::new();
                self.state = body;
                Ok(len - before)
            }
            // Empty lines before the request line.
            None => self.check_size(0).map(|()| end),
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        self.check_size(bytes.len())?;
        self.partial.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn check_size(&self, more: usize) -> Result<(), Fault> {
        if self.partial.len() + more <= self.limits.size {
            return Ok(());
        }
        let line_ended = memchr(b'\n', &self.partial).is_some();
        Err(if line_ended { Fault::HeadTooLarge } else { Fault::TargetTooLong })
    }
}

/// Where in `new`, which follows `old`, an empty line ends.
fn end_of_head(old: &[u8], new: &[u8]) -> Option<usize> {
    let before = |at: usize, back: usize| match at.checked_sub(back) {
        Some(i) => new.get(i).copied(),
        None => (old.len() + at).checked_sub(back).and_then(|i| old.get(i)).copied(),
    };
    memchr_iter(b'\n', new).find_map(|at| {
        let empty =
            before(at, 1) == Some(b'\n') || (before(at, 1) == Some(b'\r') && before(at, 2) == Some(b'\n'));
        empty.then_some(at + 1)
    })
}

/// Reads a head: its length and what follows it, or `None` where its end has not come.
fn read_head(bytes: &[u8], limits: HeadLimits) -> Result<Option<(usize, State)>, Fault> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let fields = fields.get_mut(..limits.fields).unwrap_or_default();
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(bytes, fields) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Fault::TooManyHeaders),
        Err(httparse::Error::Version) => return Err(Fault::Version),
        Err(_) => return Err(Fault::Syntax),
    };
    if len > limits.size {
        return Err(Fault::HeadTooLarge);
    }
    let head = &bytes[..len];
    if memchr_iter(b'\n', head).any(|at| at == 0 || head.get(at - 1) != Some(&b'\r')) {
        return Err(Fault::BareLineFeed);
    }
    check_target(request.path.unwrap_or_default(), limits)?;
    body(&request).map(|body| Some((len, body)))
}

fn check_target(target: &str, limits: HeadLimits) -> Result<(), Fault> {
    if target.len() > limits.target {
        return Err(Fault::TargetTooLong);
    }
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@?".contains(b);
    if target.starts_with('/') && target.as_bytes().iter().all(plain) {
        return Ok(());
    }
    // A fragment would be dropped in silence.
    if target.contains('#') || Uri::try_from(target).is_err() { Err(Fault::Target) } else { Ok(()) }
}

/// The rules of RFC 9112, 6.3, without its leniencies.
fn body(request: &httparse::Request<'_, '_>) -> Result<State, Fault> {
    let mut length = None;
    let mut chunked = false;
    for field in request.headers.iter() {
        match field.name.len() {
            14 if field.name.eq_ignore_ascii_case("content-length") => {
                if length.is_some() {
                    return Err(Fault::ContentLength);
                }
                length = Some(decimal(field.value).ok_or(Fault::ContentLength)?);
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
        (true, None) => Ok(State::Chunked(Chunks::default())),
        (false, None | Some(0)) => Ok(State::Head),
        (false, Some(length)) => Ok(State::Length(length)),
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

fn decimal(digits: &[u8]) -> Option<u64> {
    let digits = digits.trim_ascii();
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // The two greatest values are the server's marks for "chunked" and "until close".
    std::str::from_utf8(digits).ok()?.parse::<u64>().ok().filter(|&n| n < u64::MAX - 1)
}

#[cfg(test)]
mod tests;
