//! A body off the wire: which bytes are content, and where it ends. Pure.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use http_body::Frame;

use crate::chunked::{ChunkState, ChunkSyntax, InvalidChunk};

/// The most trailer fields.
const MAX_TRAILERS: usize = 64;

/// The position in a body, by the way in which its end is known (RFC 9112, 6.3).
#[derive(Debug, Default)]
pub enum BodyDecoder {
    /// There is no body, or no more of it.
    #[default]
    Done,
    /// So many bytes are still to come.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked(Box<ChunkedDecoder>),
    /// The body ends with the connection.
    CloseDelimited,
}

/// The position in a chunked body.
#[derive(Debug, Default)]
pub struct ChunkedDecoder {
    syntax: ChunkSyntax,
    state: ChunkState,
    /// The lines after the last chunk.
    trailers: Vec<u8>,
}

impl BodyDecoder {
    /// A body of `length` bytes.
    #[inline]
    pub fn length(length: u64) -> Self {
        if length == 0 { Self::Done } else { Self::Length(length) }
    }

    /// A request's chunked body, held strictly to the grammar.
    pub fn chunked() -> Self {
        Self::Chunked(Box::default())
    }

    /// A response's chunked body: what has only one reading is accepted, white space after a size for example.
    pub fn chunked_response() -> Self {
        Self::Chunked(Box::new(ChunkedDecoder { syntax: ChunkSyntax::Lenient, ..ChunkedDecoder::default() }))
    }

    /// Whether the body is complete.
    #[inline]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// The connection has ended. Returns whether the body is complete.
    pub fn end(&mut self) -> bool {
        if matches!(self, Self::CloseDelimited) {
            *self = Self::Done;
        }
        self.is_done()
    }

    /// How many bytes of content are still to come, if that is known.
    #[inline]
    pub fn remaining(&self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::CloseDelimited => None,
        }
    }

    /// Takes the next piece of content, or the trailers, off the front of `bytes`. `None` if the body is complete or if
    /// more must be read.
    ///
    /// # Errors
    /// If a chunk is invalid.
    pub fn decode(&mut self, bytes: &mut Bytes) -> Result<Option<Frame<Bytes>>, InvalidChunk> {
        match self {
            Self::Done => Ok(None),
            Self::CloseDelimited => Ok((!bytes.is_empty()).then(|| Frame::data(std::mem::take(bytes)))),
            Self::Length(left) => {
                let size = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= size as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok((size > 0).then(|| Frame::data(bytes.split_to(size))))
            }
            Self::Chunked(chunked) => {
                let frame = chunked.decode(bytes)?;
                if chunked.state.is_done() && chunked.trailers.is_empty() {
                    *self = Self::Done;
                }
                Ok(frame)
            }
        }
    }
}

impl ChunkedDecoder {
    fn decode(&mut self, bytes: &mut Bytes) -> Result<Option<Frame<Bytes>>, InvalidChunk> {
        let mut content = None;
        let mut at = 0;
        // Up to the next content, so that the end is known together with the last of it.
        while let (false, Some(&byte)) = (self.state.is_done(), bytes.get(at)) {
            if self.state.is_in_content() && content.is_some() {
                break;
            }
            let before = self.state;
            let rest = bytes.get(at..).unwrap_or_default();
            let (next, step) = before.step(byte, rest, self.syntax)?;
            if before.is_in_content() {
                content = Some(at..at + step);
            } else if before.is_in_trailers() {
                self.trailers.extend_from_slice(rest.get(..step).unwrap_or_default());
            }
            self.state = next;
            at += step;
        }
        let frame = content.map(|range| Frame::data(bytes.slice(range)));
        // Split off: `Bytes` that are advanced to their end still keep the buffer that they are in.
        drop(bytes.split_to(at));
        if !self.state.is_done() {
            return Ok(frame);
        }
        if self.trailers == b"\r\n" || self.trailers == b"\n" {
            self.trailers.clear();
        }
        if frame.is_some() || self.trailers.is_empty() {
            return Ok(frame);
        }
        parse_trailers(&std::mem::take(&mut self.trailers)).map(|trailers| Some(Frame::trailers(trailers)))
    }
}

fn parse_trailers(lines: &[u8]) -> Result<HeaderMap, InvalidChunk> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(lines, &mut fields) else {
        return Err(InvalidChunk);
    };
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let (name, value) =
            (HeaderName::from_bytes(field.name.as_bytes()), HeaderValue::from_bytes(field.value));
        let (Ok(name), Ok(value)) = (name, value) else { return Err(InvalidChunk) };
        map.append(name, value);
    }
    Ok(map)
}

#[cfg(test)]
mod tests;
