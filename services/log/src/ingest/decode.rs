//! Compressed bodies, with bounds on what comes out: a small body can unpack to anything. Pure.

use std::io::Read;

/// Room is asked for in steps of so many bytes.
const STEP: usize = 64 << 10;

/// A `Content-Encoding` that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    Zstd,
}

/// Why a body can't be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("Content-Encoding {0:?} is not understood here: gzip and zstd are")]
    Unknown(String),
    #[error("the body is not what its Content-Encoding says: {0}")]
    Broken(String),
    #[error("the body unpacks to more than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("too many at a time; come back later")]
    NoRoom,
}

impl Encoding {
    /// By header; `None` for a body as it is.
    pub(crate) fn of(header: Option<&str>) -> Result<Option<Self>, DecodeError> {
        match header.map(str::trim) {
            None | Some("" | "identity") => Ok(None),
            Some(name) if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => {
                Ok(Some(Self::Gzip))
            }
            Some(name) if name.eq_ignore_ascii_case("zstd") => Ok(Some(Self::Zstd)),
            Some(other) => Err(DecodeError::Unknown(other.chars().take(40).collect())),
        }
    }

    /// Unpacks `body` to at most `limit` bytes, as long as `take` says that there is room for so many more.
    pub(crate) fn decode(
        self,
        body: &[u8],
        limit: usize,
        take: impl FnMut(usize) -> bool,
    ) -> Result<Vec<u8>, DecodeError> {
        match self {
            Self::Gzip => read(flate2::read::MultiGzDecoder::new(body), limit, take),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(broken)?;
                // A frame may ask for a window far larger than its content.
                decoder.window_log_max(27).map_err(broken)?;
                read(decoder, limit, take)
            }
        }
    }
}

fn read(
    mut decoder: impl Read,
    limit: usize,
    mut take: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    loop {
        let before = out.len();
        // At most one byte beyond the limit, which tells that there are more.
        let step = STEP.min(limit - before + 1) as u64;
        (&mut decoder).take(step).read_to_end(&mut out).map_err(broken)?;
        match out.len() {
            len if len == before => return Ok(out),
            len if len > limit => return Err(DecodeError::TooLarge { limit }),
            len if !take(len - before) => return Err(DecodeError::NoRoom),
            _ => {}
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn broken(error: std::io::Error) -> DecodeError {
    DecodeError::Broken(error.to_string())
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
    fn bombs_end_at_the_limit() {
        let content = vec![0; 50 << 20];
        for (encoding, bomb) in
            [(Encoding::Gzip, gzip(&content)), (Encoding::Zstd, zstd::bulk::compress(&content, 19).unwrap())]
        {
            assert!(bomb.len() < 100_000);
            let decode = |limit, take: fn(usize) -> bool| encoding.decode(&bomb, limit, take);
            assert_eq!(decode(1 << 20, |_| true), Err(DecodeError::TooLarge { limit: 1 << 20 }));
            assert_eq!(decode(1 << 20, |_| false), Err(DecodeError::NoRoom));
            assert_eq!(decode(50 << 20, |_| true), Ok(content.clone()));
        }
    }

    #[test]
    fn what_was_packed_is_unpacked_and_rubbish_is_refused() {
        assert_eq!(Encoding::Gzip.decode(&gzip(b"hello"), 5, |_| true).unwrap(), b"hello");
        assert_eq!(
            Encoding::Zstd.decode(&zstd::bulk::compress(b"hello", 1).unwrap(), 5, |_| true).unwrap(),
            b"hello"
        );
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            assert!(matches!(encoding.decode(b"rubbish", 99, |_| true), Err(DecodeError::Broken(_))));
            assert!(matches!(
                encoding.decode(&gzip(b"hello")[..15], 99, |_| true),
                Err(DecodeError::Broken(_))
            ));
        }
    }

    #[test]
    fn encodings_are_known_by_name() {
        assert_eq!(Encoding::of(None), Ok(None));
        assert_eq!(Encoding::of(Some("GZIP")), Ok(Some(Encoding::Gzip)));
        assert_eq!(Encoding::of(Some("br")), Err(DecodeError::Unknown("br".to_owned())));
    }
}
