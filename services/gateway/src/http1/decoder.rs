//! A body off the wire: where it ends, and what of the bytes is content. Pure.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use http_body::Frame;

use super::chunks::Chunks;
pub(crate) use super::chunks::Malformed;

/// Most fields behind a body.
const MAX_TRAILERS: usize = 64;

/// The position in a body.
#[derive(Debug, Default)]
pub(crate) enum Decoder {
    /// Nothing more is to come.
    #[default]
    Over,
    /// So many bytes are still to come.
    Length(u64),
    Chunked(Box<Chunked>),
    /// It ends with the connection.
    UntilEnd,
}

#[derive(Debug, Default)]
pub(crate) struct Chunked {
    at: Chunks,
    /// The lines behind the last chunk.
    trailers: Vec<u8>,
}

impl Decoder {
    pub(crate) fn of_length(length: u64) -> Self {
        if length == 0 { Self::Over } else { Self::Length(length) }
    }

    pub(crate) fn chunked() -> Self {
        Self::Chunked(Box::default())
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }

    /// The connection has ended: whether the body has too.
    pub(crate) fn end(&mut self) -> bool {
        if matches!(self, Self::UntilEnd) {
            *self = Self::Over;
        }
        self.is_over()
    }

    /// How many bytes of content are still to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self {
            Self::Over => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilEnd => None,
        }
    }

    /// Takes the next piece of content off the front of `bytes`; `None` where the body is over or more must be read.
    ///
    /// # Errors
    /// Where the chunks are not what they must be.
    pub(crate) fn decode(&mut self, bytes: &mut Bytes) -> Result<Option<Frame<Bytes>>, Malformed> {
        match self {
            Self::Over => Ok(None),
            Self::UntilEnd => Ok((!bytes.is_empty()).then(|| Frame::data(std::mem::take(bytes)))),
            Self::Length(left) => {
                let size = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= size as u64;
                if *left == 0 {
                    *self = Self::Over;
                }
                Ok((size > 0).then(|| Frame::data(bytes.split_to(size))))
            }
            Self::Chunked(chunked) => {
                let frame = chunked.decode(bytes)?;
                if chunked.at.is_done() && chunked.trailers.is_empty() {
                    *self = Self::Over;
                }
                Ok(frame)
            }
        }
    }
}

impl Chunked {
    fn decode(&mut self, bytes: &mut Bytes) -> Result<Option<Frame<Bytes>>, Malformed> {
        let mut content = None;
        let mut at = 0;
        // Up to the next content, so that the end is known together with the last of it.
        while let (false, Some(&byte)) = (self.at.is_done(), bytes.get(at)) {
            if self.at.is_in_content() && content.is_some() {
                break;
            }
            let before = self.at;
            let rest = bytes.get(at..).unwrap_or_default();
            let (next, step) = before.step(byte, rest)?;
            if before.is_in_content() {
                content = Some(at..at + step);
            } else if before.is_in_trailers() {
                self.trailers.extend_from_slice(rest.get(..step).unwrap_or_default());
            }
            self.at = next;
            at += step;
        }
        let frame = content.map(|range| Frame::data(bytes.slice(range)));
        // Split off, since what is merely advanced to its end still keeps the buffer that it is in.
        drop(bytes.split_to(at));
        if !self.at.is_done() {
            return Ok(frame);
        }
        if self.trailers == b"\r\n" {
            self.trailers.clear();
        }
        if frame.is_some() || self.trailers.is_empty() {
            return Ok(frame);
        }
        parse_trailers(&std::mem::take(&mut self.trailers)).map(|trailers| Some(Frame::trailers(trailers)))
    }
}

fn parse_trailers(lines: &[u8]) -> Result<HeaderMap, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(lines, &mut fields) else {
        return Err(Malformed);
    };
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let (name, value) =
            (HeaderName::from_bytes(field.name.as_bytes()), HeaderValue::from_bytes(field.value));
        let (Ok(name), Ok(value)) = (name, value) else { return Err(Malformed) };
        map.append(name, value);
    }
    Ok(map)
}
