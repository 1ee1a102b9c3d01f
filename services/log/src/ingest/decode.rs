//! Compressed bodies, with bounds on the decompressed size: a small body can decompress to anything. Pure.

use std::io::Read;

/// Bytes to decompress between two checks of the bounds.
const STEP: usize = 64 << 10;

/// A supported `Content-Encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentEncoding {
    Gzip,
    Zstd,
}

/// Why a body can't be decompressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("Content-Encoding {0:?} is not supported; use gzip or zstd")]
    Unsupported(String),
    #[error("the body does not match its Content-Encoding: {0}")]
    Corrupt(String),
    #[error("the body decompresses to more than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("too many requests in progress; retry later")]
    NoRoom,
}

impl ContentEncoding {
    /// From the header; `None` if the body is not compressed.
    pub(crate) fn of(header: Option<&str>) -> Result<Option<Self>, DecodeError> {
        match header.map(str::trim) {
            None | Some("" | "identity") => Ok(None),
            Some(name) if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => {
                Ok(Some(Self::Gzip))
            }
            Some(name) if name.eq_ignore_ascii_case("zstd") => Ok(Some(Self::Zstd)),
            Some(other) => Err(DecodeError::Unsupported(other.chars().take(40).collect())),
        }
    }

    /// Decompresses `body` to at most `limit` bytes. `reserve` is called for the memory of each step; if it
    /// returns false, the decompression ends.
    pub(crate) fn decode(
        self,
        body: &[u8],
        limit: usize,
        reserve: impl FnMut(usize) -> bool,
    ) -> Result<Vec<u8>, DecodeError> {
        match self {
            Self::Gzip => read(flate2::read::MultiGzDecoder::new(body), limit, reserve),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(corrupt)?;
                // A frame may demand a window far larger than its content.
                decoder.window_log_max(27).map_err(corrupt)?;
                read(decoder, limit, reserve)
            }
        }
    }
}

fn read(
    mut decoder: impl Read,
    limit: usize,
    mut reserve: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    loop {
        let before = out.len();
        // At most one byte beyond the limit, which shows that there is more.
        let step = STEP.min(limit - before + 1) as u64;
        (&mut decoder).take(step).read_to_end(&mut out).map_err(corrupt)?;
        match out.len() {
            len if len == before => return Ok(out),
            len if len > limit => return Err(DecodeError::TooLarge { limit }),
            len if !reserve(len - before) => return Err(DecodeError::NoRoom),
            _ => {}
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "map_err passes a value")]
fn corrupt(error: std::io::Error) -> DecodeError {
    DecodeError::Corrupt(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn decompression_bombs_end_at_the_limit() {
        let content = vec![0; 50 << 20];
        for (encoding, bomb) in [
            (ContentEncoding::Gzip, gzip(&content)),
            (ContentEncoding::Zstd, zstd::bulk::compress(&content, 19).unwrap()),
        ] {
            assert!(bomb.len() < 100_000);
            let decode = |limit, reserve: fn(usize) -> bool| encoding.decode(&bomb, limit, reserve);
            assert_eq!(decode(1 << 20, |_| true), Err(DecodeError::TooLarge { limit: 1 << 20 }));
            assert_eq!(decode(1 << 20, |_| false), Err(DecodeError::NoRoom));
            assert_eq!(decode(50 << 20, |_| true), Ok(content.clone()));
        }
    }

    #[test]
    fn valid_bodies_are_decompressed_and_garbage_is_refused() {
        assert_eq!(ContentEncoding::Gzip.decode(&gzip(b"hello"), 5, |_| true).unwrap(), b"hello");
        assert_eq!(
            ContentEncoding::Zstd.decode(&zstd::bulk::compress(b"hello", 1).unwrap(), 5, |_| true).unwrap(),
            b"hello"
        );
        for encoding in [ContentEncoding::Gzip, ContentEncoding::Zstd] {
            assert!(matches!(encoding.decode(b"garbage", 99, |_| true), Err(DecodeError::Corrupt(_))));
            assert!(matches!(
                encoding.decode(&gzip(b"hello")[..15], 99, |_| true),
                Err(DecodeError::Corrupt(_))
            ));
        }
    }

    #[test]
    fn encodings_are_recognized_by_name() {
        assert_eq!(ContentEncoding::of(None), Ok(None));
        assert_eq!(ContentEncoding::of(Some("GZIP")), Ok(Some(ContentEncoding::Gzip)));
        assert_eq!(ContentEncoding::of(Some("br")), Err(DecodeError::Unsupported("br".to_owned())));
    }
}
