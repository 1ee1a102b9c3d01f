//! The chunked transfer coding (RFC 9112, 7.1), followed far enough to find where it ends. Pure.
//!
//! Requests are held to the grammar and to less: no white space around a size, no bare line feed. Responses come from a
//! server that is trusted with them, so whatever has only one reading is accepted there: white space after a size, leading
//! zeros, lines that end with a line feed alone.

use memchr::memchr2;

/// Bytes that one chunk's extensions, and all trailers together, may take.
const MAX_EXTENSION: usize = 4 << 10;
const MAX_TRAILERS: usize = 32 << 10;

/// Hexadecimal digits of a chunk's size, and of a lenient one's leading zeros.
const MAX_DIGITS: u8 = 15;
const MAX_ZEROS: u8 = 64;
/// White space after the size of a lenient chunk.
const MAX_SPACE: u8 = 64;

/// How much of what is not in the grammar is accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ChunkSyntax {
    /// A request's.
    #[default]
    Strict,
    /// A response's.
    Lenient,
}

/// An invalid chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunked body is invalid")]
pub struct InvalidChunk;

/// The position in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChunkState {
    /// `digits` are those after the leading zeros.
    Size {
        value: u64,
        digits: u8,
        zeros: u8,
    },
    /// In the white space after a size.
    SizeSpace {
        size: u64,
        seen: u8,
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
        Self::Size { value: 0, digits: 0, zeros: 0 }
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
    pub(crate) fn step(
        self,
        byte: u8,
        rest: &[u8],
        syntax: ChunkSyntax,
    ) -> Result<(Self, usize), InvalidChunk> {
        let one = |next| Ok((next, 1));
        let lenient = syntax == ChunkSyntax::Lenient;
        match (self, byte) {
            (Self::Size { value: 0, digits: 0, zeros }, b'0') if lenient && zeros < MAX_ZEROS => {
                one(Self::Size { value: 0, digits: 0, zeros: zeros + 1 })
            }
            (Self::Size { value, digits, zeros }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                if digits >= MAX_DIGITS {
                    return Err(InvalidChunk);
                }
                one(Self::Size { value: value * 16 + u64::from(digit), digits: digits + 1, zeros })
            }
            (Self::Size { digits: 0, zeros: 0, .. }, _) => Err(InvalidChunk),
            (Self::Size { value: size, .. }, b' ' | b'\t') if lenient => {
                one(Self::SizeSpace { size, seen: 1 })
            }
            (Self::SizeSpace { size, seen }, b' ' | b'\t') if seen < MAX_SPACE => {
                one(Self::SizeSpace { size, seen: seen + 1 })
            }
            (Self::Size { value: size, .. } | Self::SizeSpace { size, .. }, b'\r') => {
                one(Self::SizeLf { size })
            }
            (Self::Size { value: size, .. } | Self::SizeSpace { size, .. }, b'\n') if lenient => {
                one(Self::after_size_line(size))
            }
            (Self::Size { value: size, .. } | Self::SizeSpace { size, .. }, b';') => {
                one(Self::Extension { size, seen: 0 })
            }
            (Self::Extension { size, .. }, b'\r') => one(Self::SizeLf { size }),
            (Self::Extension { size, seen }, b'\t' | b' '..=b'~' | 0x80..) if seen < MAX_EXTENSION => {
                one(Self::Extension { size, seen: seen + 1 })
            }
            (Self::SizeLf { size }, b'\n') => one(Self::after_size_line(size)),
            (Self::Data { left }, _) => {
                let step = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                let left = left - step as u64;
                Ok((if left == 0 { Self::DataCr } else { Self::Data { left } }, step))
            }
            (Self::DataCr, b'\r') => one(Self::DataLf),
            (Self::DataLf, b'\n') => one(Self::default()),
            (Self::DataCr, b'\n') if lenient => one(Self::default()),
            (Self::TrailerStart { .. }, b'\r') => one(Self::EndLf),
            (Self::TrailerStart { .. }, b'\n') if lenient => one(Self::Done),
            (Self::TrailerStart { seen } | Self::Trailer { seen }, _) => match memchr2(b'\r', b'\n', rest) {
                Some(0) if byte == b'\r' => one(Self::TrailerLf { seen: seen + 1 }),
                Some(0) if lenient => one(Self::TrailerStart { seen: seen + 1 }),
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
    /// The state after a line with this size.
    fn after_size_line(size: u64) -> Self {
        if size == 0 { Self::TrailerStart { seen: 0 } } else { Self::Data { left: size } }
    }
}
