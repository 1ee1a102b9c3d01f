//! The part of a request's body that was read, kept for another attempt. Pure.
//!
//! It is copied: a slice of the connection's read buffer would keep all of that buffer in memory, some kilobytes for a
//! chunk of one byte.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use crate::memory::Charge;

/// The bytes that were read, and how many of them the current attempt has.
#[derive(Debug)]
pub(super) struct ReplayBuffer {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// Bytes of `data` that the current attempt has.
    position: usize,
    /// Whether the current attempt has yet to get the trailers.
    trailers_due: bool,
    /// The limit; `None` once the body has exceeded it, or there will be no other attempt.
    limit: Option<usize>,
    /// Its share of the memory for such buffers.
    charge: Charge,
}

impl ReplayBuffer {
    pub(super) fn new(limit: usize, charge: Charge) -> Self {
        Self {
            data: Vec::new(),
            trailers: None,
            position: 0,
            trailers_due: false,
            limit: Some(limit),
            charge,
        }
    }

    /// Whether everything that was read is in the buffer.
    pub(super) fn is_complete(&self) -> bool {
        self.limit.is_some()
    }

    /// Another attempt begins.
    pub(super) fn rewind(&mut self) {
        self.position = 0;
        self.trailers_due = self.trailers.is_some();
    }

    /// Whether the current attempt has everything in the buffer.
    pub(super) fn is_drained(&self) -> bool {
        self.position >= self.data.len() && !self.trailers_due
    }

    /// The next frame for the current attempt.
    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        let rest = self.data.get(self.position..).filter(|rest| !rest.is_empty());
        let frame = match rest {
            Some(rest) => Frame::data(Bytes::copy_from_slice(rest)),
            None if self.trailers_due => {
                self.trailers_due = false;
                Frame::trailers(self.trailers.clone()?)
            }
            None => return None,
        };
        self.position = self.data.len();
        self.drop_drained();
        Some(frame)
    }

    /// Keeps a frame that was read from the client. The current attempt, which is drained, gets it directly.
    pub(super) fn push(&mut self, frame: &Frame<Bytes>) {
        let Some(limit) = self.limit else { return };
        match frame.data_ref() {
            Some(data) if self.data.len().saturating_add(data.len()) <= limit && self.reserve(data.len()) => {
                self.data.extend_from_slice(data);
                self.position = self.data.len();
            }
            Some(_) => self.end_replay(),
            None => self.trailers = frame.trailers_ref().cloned(),
        }
    }

    /// Makes room for so many bytes, if there is memory for them.
    fn reserve(&mut self, more: usize) -> bool {
        let (len, capacity) = (self.data.len(), self.data.capacity());
        if len + more <= capacity {
            return true;
        }
        // Twice as much each time, or a body of many small pieces would be moved for each of them.
        let next = (len + more).max(capacity * 2);
        let granted = self.charge.grow(next - capacity);
        if granted {
            self.data.reserve_exact(next - len);
        }
        granted
    }

    /// There will be no other attempt. Bytes that the current one has yet to get stay until then.
    pub(super) fn end_replay(&mut self) {
        self.limit = None;
        self.drop_drained();
    }

    fn drop_drained(&mut self) {
        if self.limit.is_none() && self.is_drained() {
            self.data = Vec::new();
            self.charge.set(0);
            self.trailers = None;
            self.position = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::LimitsConfig;
    use crate::memory::Memory;

    fn memory(bytes: u64) -> Memory {
        Memory::new(&LimitsConfig { replay_memory: bytesize::ByteSize::b(bytes), ..LimitsConfig::default() })
    }

    fn buffer(limit: usize) -> ReplayBuffer {
        ReplayBuffer::new(limit, memory(1 << 20).replay.charge())
    }

    #[test]
    fn all_buffers_share_one_budget() {
        let memory = memory(150);
        let mut buffers = [0; 3].map(|_| ReplayBuffer::new(100, memory.replay.charge()));
        buffers.iter_mut().for_each(|buffer| buffer.push(&Frame::data(Bytes::from(vec![b'x'; 60]))));
        assert_eq!(buffers.each_ref().map(ReplayBuffer::is_complete), [true, true, false]);
        assert_eq!(memory.replay.used(), 120);
        let [first, mut second, _] = buffers;
        drop(first);
        second.end_replay();
        assert_eq!((memory.replay.used(), second.data.capacity()), (0, 0));
    }

    fn rest(buffer: &mut ReplayBuffer) -> (Vec<u8>, bool) {
        let (mut data, mut trailers) = (Vec::new(), false);
        while let Some(frame) = buffer.next() {
            match frame.into_data() {
                Ok(part) => data.extend_from_slice(&part),
                Err(_) => trailers = true,
            }
        }
        (data, trailers)
    }

    #[test]
    fn bytes_that_are_kept_do_not_keep_the_read_buffer() {
        let mut buffer = buffer(64 << 10);
        let mut read = Bytes::from(vec![b'x'; 8 << 10]);
        buffer.push(&Frame::data(read.split_to(1)));
        assert!(read.is_unique(), "one byte keeps the whole read buffer");
        assert!(buffer.data.capacity() < 1 << 10);
    }

    #[test]
    fn a_body_that_exceeds_the_limit_is_dropped_at_once() {
        let mut buffer = buffer(10);
        buffer.push(&Frame::data(Bytes::from_static(b"0123456789")));
        assert!(buffer.is_complete());
        buffer.push(&Frame::data(Bytes::from_static(b"0")));
        assert!(!buffer.is_complete() && buffer.data.capacity() == 0);
    }

    #[test]
    fn bytes_that_an_attempt_has_yet_to_get_outlive_the_end_of_replay() {
        let mut buffer = buffer(10);
        buffer.push(&Frame::data(Bytes::from_static(b"01234")));
        buffer.push(&Frame::trailers(HeaderMap::new()));
        buffer.rewind();
        buffer.end_replay();
        assert_eq!(rest(&mut buffer), (b"01234".to_vec(), true));
        assert_eq!((buffer.data.capacity(), buffer.trailers.is_none()), (0, true));
    }

    proptest! {
        /// Whenever an attempt begins, it gets what was read, once and in order, and then what follows.
        #[test]
        fn each_attempt_gets_the_whole_body(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..20),
            attempts in proptest::collection::vec(0_usize..20, 0..4),
            trailers in any::<bool>(),
        ) {
            let mut buffer = buffer(1000);
            let (mut all, mut got) = (Vec::new(), Vec::new());
            for (i, frame) in frames.iter().enumerate() {
                if attempts.contains(&i) {
                    buffer.rewind();
                    got = rest(&mut buffer).0;
                }
                buffer.push(&Frame::data(Bytes::copy_from_slice(frame)));
                all.extend_from_slice(frame);
                got.extend_from_slice(frame);
            }
            if trailers {
                buffer.push(&Frame::trailers(HeaderMap::new()));
            }
            prop_assert!(buffer.is_drained() && buffer.is_complete());
            prop_assert_eq!(&got, &all);
            buffer.rewind();
            prop_assert_eq!(rest(&mut buffer), (all, trailers));
        }
    }
}
