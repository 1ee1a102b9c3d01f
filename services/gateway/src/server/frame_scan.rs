//! Where in a client's HTTP/2 frames the bytes that were read so far end: within a header block, or within a frame. Until
//! their ends have arrived, both take up memory in the HTTP/2 library, which does not report it. Pure.

/// The beginning of each frame: length, type, flags, stream (RFC 9113, 4.1).
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Follows the frames of one connection.
#[derive(Debug, Default)]
pub(super) struct FrameScan {
    /// Bytes of the preface that have yet to come.
    preface: usize,
    head: [u8; FRAME_HEAD],
    /// How much of `head` has arrived.
    have: usize,
    /// Bytes of the current frame's payload that have arrived, and that have yet to come.
    arrived: usize,
    missing: usize,
    in_block: bool,
}

impl FrameScan {
    /// For a connection whose first `preface` bytes are no frames.
    pub(super) fn after(preface: usize) -> Self {
        Self { preface, ..Self::default() }
    }

    /// Bytes were read.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        let preface = self.preface.min(bytes.len());
        bytes = bytes.get(preface..).unwrap_or_default();
        self.preface -= preface;
        while !bytes.is_empty() {
            if self.have < FRAME_HEAD {
                let Some((first, rest)) = bytes.split_first() else { return };
                if let Some(next) = self.head.get_mut(self.have) {
                    *next = *first;
                }
                (self.have, bytes) = (self.have + 1, rest);
                if self.have == FRAME_HEAD {
                    let [high, middle, low, ..] = self.head;
                    self.missing = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                    self.end_if_complete();
                }
                continue;
            }
            let part = self.missing.min(bytes.len());
            bytes = bytes.get(part..).unwrap_or_default();
            (self.arrived, self.missing) = (self.arrived + part, self.missing - part);
            self.end_if_complete();
        }
    }

    fn end_if_complete(&mut self) {
        if self.missing == 0 {
            let [_, _, _, kind, flags, ..] = self.head;
            if kind == HEADERS || kind == CONTINUATION {
                self.in_block = flags & END_HEADERS == 0;
            }
            (self.have, self.arrived) = (0, 0);
        }
    }

    /// Whether a header block has begun and not ended.
    pub(super) fn is_in_block(&self) -> bool {
        self.in_block
    }

    /// Bytes of an incomplete frame.
    pub(super) fn partial(&self) -> usize {
        self.have + self.arrived
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// However the bytes are cut, the state after them is the same.
    #[test]
    fn blocks_and_frames_are_followed_to_their_ends() {
        let settings = frame(4, 0, &[0; 6]);
        let whole = frame(HEADERS, END_HEADERS | 1, b"block");
        let begun = frame(HEADERS, 1, b"block");
        let more = frame(CONTINUATION, 0, b"");
        let last = frame(CONTINUATION, END_HEADERS, b"block");
        let data = frame(0, 0, &[0; 70_000]);
        for (frames, in_block, partial) in [
            (vec![&settings[..], &whole], false, 0),
            (vec![&settings, &begun], true, 0),
            (vec![&begun, &more, &more], true, 0),
            (vec![&begun, &more, &last, &data], false, 0),
            (vec![&whole, &data[..40_009]], false, 40_009),
            (vec![&whole, &data[..4]], false, 4),
            (vec![&begun[..11]], false, 11),
        ] {
            let bytes = [PREFACE, &frames.concat()].concat();
            for cut in [1, 2, 9, 24, 1000, bytes.len()] {
                let mut scan = FrameScan::after(PREFACE.len());
                bytes.chunks(cut).for_each(|part| scan.read(part));
                assert_eq!((scan.is_in_block(), scan.partial()), (in_block, partial), "{cut}");
            }
        }
    }
}
