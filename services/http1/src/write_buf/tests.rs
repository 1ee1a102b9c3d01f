use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use tokio::io::AsyncWrite;

use super::*;

/// A socket that accepts at most so many bytes at a time.
struct Socket {
    max: usize,
    received: Vec<u8>,
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let size = self.max.min(bytes.len());
        self.received.extend_from_slice(&bytes[..size]);
        Poll::Ready(Ok(size))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.poll_write(cx, &all)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

proptest! {
    /// Whatever is pushed, and however little the socket accepts at a time: it arrives whole and in order.
    #[test]
    fn order_is_kept(
        pieces in proptest::collection::vec((0_usize..9000, any::<u8>(), any::<bool>(), any::<bool>()), 0..12),
        max in 1_usize..20_000,
    ) {
        let (mut out, mut expected) = (WriteBuf::default(), Vec::new());
        let mut socket = Socket { max, received: Vec::new() };
        let mut cx = Context::from_waker(Waker::noop());
        for (size, byte, is_head, write) in pieces {
            let piece = vec![byte; size];
            expected.extend_from_slice(&piece);
            match is_head {
                true => out.write_head(|text| text.extend_from_slice(&piece)),
                false => out.push(piece.into()),
            }
            prop_assert_eq!(out.len(), expected.len() - socket.received.len());
            if write && !out.is_empty() {
                prop_assert!(out.poll_write(Pin::new(&mut socket), &mut cx).is_ready());
            }
        }
        while !out.is_empty() {
            prop_assert!(matches!(out.poll_write(Pin::new(&mut socket), &mut cx), Poll::Ready(Ok(1..))));
        }
        prop_assert!(socket.received == expected);
    }
}
