//! What of a request's body has gone by, kept for another attempt. Pure.
//!
//! It is copied into one buffer: a slice of what the connection read would keep the whole of its read buffer in memory,
//! some kilobytes for a chunk of one byte.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

/// What has gone by, and how much of it the present attempt has been given.
#[derive(Debug)]
pub(super) struct Kept {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// Bytes of `data` that the present attempt has.
    given: usize,
    /// The present attempt has not been given the trailers that were kept.
    trailers_due: bool,
    /// Most bytes to keep; `None` once not all is here, or nobody will ask again.
    most: Option<usize>,
}

impl Kept {
    pub(super) fn new(most: usize) -> Self {
        Self { data: Vec::new(), trailers: None, given: 0, trailers_due: false, most: Some(most) }
    }

    /// Whether all that has gone by is here.
    pub(super) fn is_whole(&self) -> bool {
        self.most.is_some()
    }

    /// Another attempt begins.
    pub(super) fn rewind(&mut self) {
        self.given = 0;
        self.trailers_due = self.trailers.is_some();
    }

    /// Whether the present attempt has all that is here.
    pub(super) fn is_given(&self) -> bool {
        self.given >= self.data.len() && !self.trailers_due
    }

    /// The next frame for the present attempt.
    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        let rest = self.data.get(self.given..).filter(|rest| !rest.is_empty());
        let frame = match rest {
            Some(rest) => Frame::data(Bytes::copy_from_slice(rest)),
            None if self.trailers_due => {
                self.trailers_due = false;
                Frame::trailers(self.trailers.clone()?)
            }
            None => return None,
        };
        self.given = self.data.len();
        self.drop_given();
        Some(frame)
    }

    /// Another frame goes by, to an attempt that has all that is here.
    pub(super) fn note(&mut self, frame: &Frame<Bytes>) {
        let Some(most) = self.most else { return };
        match frame.data_ref() {
            Some(data) if self.data.len().saturating_add(data.len()) <= most => {
                self.data.extend_from_slice(data);
                self.given = self.data.len();
            }
            Some(_) => self.forget(),
            None => self.trailers = frame.trailers_ref().cloned(),
        }
    }

    /// There will be no other attempt. What the present one still needs stays until it has it.
    pub(super) fn forget(&mut self) {
        self.most = None;
        self.drop_given();
    }

    fn drop_given(&mut self) {
        if self.most.is_none() && self.is_given() {
            self.data = Vec::new();
            self.trailers = None;
            self.given = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rest(kept: &mut Kept) -> (Vec<u8>, bool) {
        let (mut data, mut trailers) = (Vec::new(), false);
        while let Some(frame) = kept.next() {
            match frame.into_data() {
                Ok(part) => data.extend_from_slice(&part),
                Err(_) => trailers = true,
            }
        }
        (data, trailers)
    }

    #[test]
    fn what_is_kept_holds_nothing_of_what_was_read() {
        let mut kept = Kept::new(64 << 10);
        let mut read = Bytes::from(vec![b'x'; 8 << 10]);
        kept.note(&Frame::data(read.split_to(1)));
        assert!(read.is_unique(), "one byte that is kept keeps all that was read with it");
        assert!(kept.data.capacity() < 1 << 10);
    }

    #[test]
    fn what_is_too_long_to_keep_is_dropped_at_once() {
        let mut kept = Kept::new(10);
        kept.note(&Frame::data(Bytes::from_static(b"0123456789")));
        assert!(kept.is_whole());
        kept.note(&Frame::data(Bytes::from_static(b"0")));
        assert!(!kept.is_whole() && kept.data.capacity() == 0);
    }

    #[test]
    fn what_an_attempt_has_not_been_given_yet_outlives_the_last_question() {
        let mut kept = Kept::new(10);
        kept.note(&Frame::data(Bytes::from_static(b"01234")));
        kept.note(&Frame::trailers(HeaderMap::new()));
        kept.rewind();
        kept.forget();
        assert_eq!(rest(&mut kept), (b"01234".to_vec(), true));
        assert_eq!((kept.data.capacity(), kept.trailers.is_none()), (0, true));
    }

    proptest! {
        /// Whenever an attempt begins, it is given what has gone by, once and in order, and then what follows.
        #[test]
        fn each_attempt_gets_the_whole(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..20),
            attempts in proptest::collection::vec(0_usize..20, 0..4),
            trailers in any::<bool>(),
        ) {
            let mut kept = Kept::new(1000);
            let (mut all, mut got) = (Vec::new(), Vec::new());
            for (i, frame) in frames.iter().enumerate() {
                if attempts.contains(&i) {
                    kept.rewind();
                    got = rest(&mut kept).0;
                }
                kept.note(&Frame::data(Bytes::copy_from_slice(frame)));
                all.extend_from_slice(frame);
                got.extend_from_slice(frame);
            }
            if trailers {
                kept.note(&Frame::trailers(HeaderMap::new()));
            }
            prop_assert!(kept.is_given() && kept.is_whole());
            prop_assert_eq!(&got, &all);
            kept.rewind();
            prop_assert_eq!(rest(&mut kept), (all, trailers));
        }
    }
}
