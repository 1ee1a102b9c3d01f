//! The chunked transfer coding (RFC 9112, 7.1), followed far enough to find where it ends. Pure.
//!
//! Stricter than the RFC asks of a recipient: no white space around a size, no bare line feed.

use memchr::memchr2;

/// Bytes that one chunk's extensions, and all trailers together, may take.
const MAX_EXTENSION: usize = 4 << 10;
const MAX_TRAILERS: usize = 32 << 10;

/// Hexadecimal digits of a chunk's size.
const MAX_DIGITS: u8 = 15;

/// An invalid chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunked body is invalid")]
pub struct InvalidChunk;

/// The position in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChunkState {
    Size {
        value: u64,
        digits: u8,
    },
    Extension {
        size: u64,
        seen: usize,
    },
    /// After the carriage return of a size line.
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    TrailerStart {
        seen: usize,
    },
    Trailer {
        seen: usize,
    },
    /// After the carriage return of a trailer line.
    TrailerLf {
        seen: usize,
    },
    /// After the carriage return of the last, empty line.
    EndLf,
    Done,
}

impl Default for ChunkState {
    fn default() -> Self {
        Self::Size { value: 0, digits: 0 }
    }
}

impl ChunkState {
    pub(crate) fn is_done(self) -> bool {
        self == Self::Done
    }

    /// Whether the next byte is content.
    pub(crate) fn is_in_content(self) -> bool {
        matches!(self, Self::Data { .. })
    }

    /// Whether the next byte belongs to the trailers or to the empty line that ends them.
    pub(crate) fn is_in_trailers(self) -> bool {
        matches!(
            self,
            Self::TrailerStart { .. } | Self::Trailer { .. } | Self::TrailerLf { .. } | Self::EndLf
        )
    }

    /// The state after `byte`, the first of `rest`, and how many bytes the step takes: more than one if those that
    /// follow are of the same kind.
    pub(crate) fn step(self, byte: u8, rest: &[u8]) -> Result<(Self, usize), InvalidChunk> {
        let one = |next| Ok((next, 1));
        match (self, byte) {
            (Self::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                if digits >= MAX_DIGITS {
                    return Err(InvalidChunk);
                }
                one(Self::Size { value: value * 16 + u64::from(digit), digits: digits + 1 })
            }
            (Self::Size { digits: 0, .. }, _) => Err(InvalidChunk),
            (Self::Size { value, .. }, b'\r') => one(Self::SizeLf { size: value }),
            (Self::Size { value, .. }, b';') => one(Self::Extension { size: value, seen: 0 }),
            (Self::Extension { size, .. }, b'\r') => one(Self::SizeLf { size }),
            (Self::Extension { size, seen }, b'\t' | b' '..=b'~' | 0x80..) if seen < MAX_EXTENSION => {
                one(Self::Extension { size, seen: seen + 1 })
            }
            (Self::SizeLf { size: 0 }, b'\n') => one(Self::TrailerStart { seen: 0 }),
            (Self::SizeLf { size }, b'\n') => one(Self::Data { left: size }),
            (Self::Data { left }, _) => {
                let step = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                let left = left - step as u64;
                Ok((if left == 0 { Self::DataCr } else { Self::Data { left } }, step))
            }
            (Self::DataCr, b'\r') => one(Self::DataLf),
            (Self::DataLf, b'\n') => one(Self::default()),
            (Self::TrailerStart { .. }, b'\r') => one(Self::EndLf),
            (Self::TrailerStart { seen } | Self::Trailer { seen }, _) => match memchr2(b'\r', b'\n', rest) {
                Some(0) if byte == b'\r' => one(Self::TrailerLf { seen: seen + 1 }),
                Some(0) => Err(InvalidChunk),
                end => {
                    let step = end.unwrap_or(rest.len());
                    let seen = seen + step;
                    if seen > MAX_TRAILERS {
                        return Err(InvalidChunk);
                    }
                    Ok((Self::Trailer { seen }, step))
                }
            },
            (Self::TrailerLf { seen }, b'\n') => one(Self::TrailerStart { seen }),
            (Self::EndLf, b'\n') => one(Self::Done),
            _ => Err(InvalidChunk),
        }
    }
}
