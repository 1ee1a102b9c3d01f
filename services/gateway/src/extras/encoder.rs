//! Compresses a body as it passes.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;

use super::compress::Coding;
use crate::memory::{Budget, Charge};

/// The least that makes pages about as small as higher levels do, at several times their speed.
const GZIP_LEVEL: u32 = 4;
const ZSTD_LEVEL: i32 = 1;
/// How far zstd looks back, as a power of two: little memory at both ends.
const ZSTD_WINDOW: u32 = 17;
/// Estimated from the libraries' tables and buffers.
const MEMORY: usize = 640 << 10;

/// The compressor of one response.
pub(crate) struct Encoder {
    codec: Codec,
    /// Bytes went in of which not all have come out.
    is_behind: bool,
    is_finished: bool,
    /// They follow the compressed form.
    pub(crate) trailers: Option<HeaderMap>,
    _memory: Charge,
}

enum Codec {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    /// `None` if there is no memory for another one.
    pub(super) fn new(coding: Coding, budget: &Arc<Budget>) -> Option<Self> {
        let memory = budget.charge();
        if !memory.grow(MEMORY) {
            return None;
        }
        let codec = match coding {
            Coding::Gzip => Codec::Gzip(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL))),
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL).ok()?;
                encoder.window_log(ZSTD_WINDOW).ok()?;
                Codec::Zstd(encoder)
            }
        };
        Some(Self { codec, is_behind: false, is_finished: false, trailers: None, _memory: memory })
    }

    /// Takes a part of the body; returns what is ready of its compressed form, which may be nothing yet.
    pub(crate) fn write(&mut self, data: &[u8]) -> io::Result<Bytes> {
        self.is_behind |= !data.is_empty();
        match &mut self.codec {
            Codec::Gzip(encoder) => encoder.write_all(data)?,
            Codec::Zstd(encoder) => encoder.write_all(data)?,
        }
        Ok(self.take())
    }

    /// The rest of the compressed form of what went in: nothing more comes for now.
    pub(crate) fn flush(&mut self) -> io::Result<Option<Bytes>> {
        if !std::mem::take(&mut self.is_behind) {
            return Ok(None);
        }
        match &mut self.codec {
            Codec::Gzip(encoder) => encoder.flush()?,
            Codec::Zstd(encoder) => encoder.flush()?,
        }
        Ok(Some(self.take()).filter(|bytes| !bytes.is_empty()))
    }

    /// The end of the compressed form.
    pub(crate) fn finish(&mut self) -> io::Result<Bytes> {
        self.is_finished = true;
        match &mut self.codec {
            Codec::Gzip(encoder) => encoder.try_finish()?,
            Codec::Zstd(encoder) => encoder.do_finish()?,
        }
        Ok(self.take())
    }

    /// Whether the end has been returned, and the trailers too.
    pub(crate) fn is_over(&self) -> bool {
        self.is_finished && self.trailers.is_none()
    }

    /// Whether the end has been returned.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_finished
    }

    fn take(&mut self) -> Bytes {
        let out = match &mut self.codec {
            Codec::Gzip(encoder) => encoder.get_mut(),
            Codec::Zstd(encoder) => encoder.get_mut(),
        };
        std::mem::take(out).into()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;
    use crate::config::LimitsConfig;
    use crate::memory::Memory;

    fn decoded(coding: Coding, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        match coding {
            Coding::Gzip => drop(flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain)?),
            Coding::Zstd => plain = zstd::stream::decode_all(bytes)?,
        }
        Ok(plain)
    }

    /// As much as can be read of a body that has not ended.
    fn decoded_so_far(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut read: Box<dyn Read + '_> = match coding {
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
        };
        let mut part = [0; 512];
        while let Ok(n @ 1..) = read.read(&mut part) {
            plain.extend_from_slice(&part[..n]);
        }
        plain
    }

    #[test]
    fn so_many_responses_are_compressed_at_once_and_further_ones_are_not() {
        let memory = Memory::new(&LimitsConfig::default());
        let all: Vec<_> = std::iter::from_fn(|| Encoder::new(Coding::Gzip, &memory.encoders)).collect();
        assert!((20..40).contains(&all.len()), "{}", all.len());
        drop(all);
        assert!(Encoder::new(Coding::Zstd, &memory.encoders).is_some());
    }

    proptest! {
        #[test]
        fn a_body_is_the_same_after_compression_however_it_is_cut(
            parts in proptest::collection::vec((proptest::collection::vec(97..101_u8, 0..4000), any::<bool>()), 0..20),
            is_zstd: bool,
        ) {
            let coding = if is_zstd { Coding::Zstd } else { Coding::Gzip };
            let memory = Memory::new(&LimitsConfig::default());
            let mut encoder = Encoder::new(coding, &memory.encoders).unwrap();
            let (mut plain, mut compressed) = (Vec::new(), Vec::new());
            for (part, is_flushed) in parts {
                plain.extend_from_slice(&part);
                compressed.extend(encoder.write(&part).unwrap());
                if is_flushed {
                    compressed.extend(encoder.flush().unwrap().unwrap_or_default());
                    prop_assert_eq!(&decoded_so_far(coding, &compressed), &plain, "all is there");
                    prop_assert_eq!(encoder.flush().unwrap(), None);
                }
            }
            compressed.extend(encoder.finish().unwrap());
            prop_assert!(encoder.is_finished() && encoder.is_over());
            prop_assert_eq!(decoded(coding, &compressed).unwrap(), plain);
        }
    }
}
