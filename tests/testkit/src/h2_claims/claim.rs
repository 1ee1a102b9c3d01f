//! A claim about what a server does, and what most of them send.

use crate::h2::kind::HEADERS;
use crate::h2::{block, flag, frame, head, pseudo};

/// Error codes (RFC 9113, 7).
pub(super) const PROTOCOL: u32 = 1;
pub(super) const FLOW_CONTROL: u32 = 3;
pub(super) const STREAM_CLOSED: u32 = 5;
pub(super) const FRAME_SIZE: u32 = 6;
pub(super) const COMPRESSION: u32 = 9;

/// The reaction that a section asks for. `PROTOCOL_ERROR` stands for every more specific code: it is "for use when a more
/// specific error code is not available" (RFC 9113, 7).
#[derive(Debug, Clone, Copy)]
pub(super) enum Reaction {
    /// The connection goes on: a ping after the frames is answered.
    GoesOn,
    /// Stream 1 is answered.
    Answer,
    /// The stream is reset, or the connection closed, with one of these error codes.
    StreamError(&'static [u32]),
    /// The connection is closed, with one of these error codes.
    ConnectionError(&'static [u32]),
}

/// A section, the claim, the frames that follow the settings, and the reaction.
pub(super) type Case = (&'static str, &'static str, Vec<u8>, Reaction);

/// A whole request.
pub(super) fn get(stream: u32) -> Vec<u8> {
    head(stream, &pseudo("GET", "/"), true)
}

/// A request whose body is to come.
pub(super) fn post(stream: u32) -> Vec<u8> {
    head(stream, &pseudo("POST", "/"), false)
}

/// A request head in a `HEADERS` frame with these flags.
pub(super) fn headers(flags: u8, stream: u32) -> Vec<u8> {
    frame(HEADERS, flags, stream, &block(&pseudo("GET", "/")))
}

/// A request with more fields.
pub(super) fn with(fields: &[(&str, &str)]) -> Vec<u8> {
    head(1, &[&pseudo("GET", "/"), fields].concat(), true)
}

/// The flags of a `HEADERS` frame that is a whole request.
pub(super) const END: u8 = flag::END_HEADERS | flag::END_STREAM;
