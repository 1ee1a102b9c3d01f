//! The chunked coding (RFC 9112, 7.1), followed just far enough to know where it ends. Pure.
//!
//! Stricter than the standard asks of a recipient: no white space around the size, no bare line feed.

use memchr::memchr2;

/// Bytes that one chunk's extensions, and all trailers together, may take.
const MAX_EXTENSION: usize = 4 << 10;
const MAX_TRAILERS: usize = 32 << 10;

/// A chunked body that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its chunks are broken")]
pub(crate) struct Malformed;

/// The position in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// In the digits of a size.
    Size {
        value: u64,
        digits: u8,
    },
    /// After a size, in an extension.
    Extension {
        size: u64,
        seen: usize,
    },
    /// After the carriage return of a size line.
    SizeLf {
        size: u64,
    },
    /// In data.
    Data {
        left: u64,
    },
    /// After data.
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    Line {
        seen: usize,
    },
    /// In a trailer line.
    Trailer {
        seen: usize,
    },
    /// After the carriage return of a trailer line.
    TrailerLf {
        seen: usize,
    },
    /// After the carriage return of the last, empty line.
    LastLf,
    Done,
}

impl Default for Chunks {
    fn default() -> Self {
        Self::Size { value: 0, digits: 0 }
    }
}

impl Chunks {
    pub(crate) fn is_done(self) -> bool {
        self == Self::Done
    }

    /// Whether what comes next is content.
    pub(crate) fn is_in_content(self) -> bool {
        matches!(self, Self::Data { .. })
    }

    /// Whether what comes next is trailers, or the empty line that ends them.
    pub(crate) fn is_in_trailers(self) -> bool {
        matches!(self, Self::Line { .. } | Self::Trailer { .. } | Self::TrailerLf { .. } | Self::LastLf)
    }

    /// The position behind `byte`, the first of `rest`, and how many more bytes of the same kind it takes along.
    pub(crate) fn step(self, byte: u8, rest: &[u8]) -> Result<(Self, usize), Malformed> {
        let one = |next| Ok((next, 1));
        match (self, byte) {
            (Self::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                if digits >= 15 {
                    return Err(Malformed);
                }
                one(Self::Size { value: value * 16 + u64::from(digit), digits: digits + 1 })
            }
            (Self::Size { digits: 0, .. }, _) => Err(Malformed),
            (Self::Size { value, .. }, b'\r') => one(Self::SizeLf { size: value }),
            (Self::Size { value, .. }, b';') => one(Self::Extension { size: value, seen: 0 }),
            (Self::Extension { size, .. }, b'\r') => one(Self::SizeLf { size }),
            (Self::Extension { size, seen }, b'\t' | b' '..=b'~' | 0x80..) if seen < MAX_EXTENSION => {
                one(Self::Extension { size, seen: seen + 1 })
            }
            (Self::SizeLf { size: 0 }, b'\n') => one(Self::Line { seen: 0 }),
            (Self::SizeLf { size }, b'\n') => one(Self::Data { left: size }),
            (Self::Data { left }, _) => {
                let step = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                let left = left - step as u64;
                Ok((if left == 0 { Self::DataCr } else { Self::Data { left } }, step))
            }
            (Self::DataCr, b'\r') => one(Self::DataLf),
            (Self::DataLf, b'\n') => one(Self::default()),
            (Self::Line { .. }, b'\r') => one(Self::LastLf),
            (Self::Line { seen } | Self::Trailer { seen }, _) => match memchr2(b'\r', b'\n', rest) {
                Some(0) if byte == b'\r' => one(Self::TrailerLf { seen: seen + 1 }),
                Some(0) => Err(Malformed),
                end => {
                    let step = end.unwrap_or(rest.len());
                    let seen = seen + step;
                    if seen > MAX_TRAILERS { Err(Malformed) } else { Ok((Self::Trailer { seen }, step)) }
                }
            },
            (Self::TrailerLf { seen }, b'\n') => one(Self::Line { seen }),
            (Self::LastLf, b'\n') => one(Self::Done),
            _ => Err(Malformed),
        }
    }
}
