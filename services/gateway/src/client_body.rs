//! A client's request body, over HTTP/1 or HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use h2::RecvStream;
use http_body::{Body, Frame};
use hubspoke_http1::{RequestBody, RequestBodyError};
use hubspoke_tls::TlsSocket;
use tokio::io::{Interest, ReadHalf, Ready};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use crate::memory::{Charge, Memory, STREAM_WINDOW};

/// A client's request body.
pub(crate) enum ClientBody {
    /// Dropped before its end, its connection reads and discards the rest.
    H1(RequestBody<OwnedReadHalf>),
    /// The same, behind TLS.
    Tls(RequestBody<ReadHalf<TlsSocket<TcpStream>>>),
    /// Dropped before its end, its stream is reset.
    H2(H2Body),
}

/// The body of a request on an HTTP/2 stream.
pub(crate) struct H2Body {
    stream: RecvStream,
    /// All data was read; trailers may follow.
    data_ended: bool,
    /// The memory that its window may take up while nobody reads on; none while more is waited for.
    ahead: Charge,
}

/// Why a client's body is incomplete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientBodyError {
    #[error(transparent)]
    H1(#[from] RequestBodyError),
    #[error(transparent)]
    H2(#[from] h2::Error),
    /// Too many bodies wait for instances that do not read them.
    #[error("no memory is left for bodies that wait")]
    OutOfMemory,
}

impl ClientBody {
    pub(crate) fn h2(stream: RecvStream, memory: &Memory) -> Self {
        Self::H2(H2Body { stream, data_ended: false, ahead: memory.uploads.charge() })
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        match self {
            Self::H1(body) => Pin::new(body).poll_frame(cx).map_err(ClientBodyError::H1),
            Self::Tls(body) => Pin::new(body).poll_frame(cx).map_err(ClientBodyError::H1),
            Self::H2(body) => body.poll_frame(cx),
        }
    }

    /// Nobody reads the body for now: counts what the client may send ahead. False if there is no memory for it.
    pub(crate) fn reserve_ahead(&self) -> bool {
        match self {
            // It waits in the client's socket.
            Self::H1(_) | Self::Tls(_) => true,
            Self::H2(body) => body.ahead.raise(STREAM_WINDOW as usize),
        }
    }

    /// Whether the client has closed its side, as far as the event loop knows. On HTTP/2 its stream's task learns it; behind
    /// TLS the next read does.
    pub(crate) fn is_cut_off(&self) -> bool {
        let Self::H1(body) = self else { return false };
        let closed = body.with_stream(|read| {
            let ready = read.ready(Interest::READABLE).now_or_never();
            ready.is_some_and(|ready| ready.is_ok_and(Ready::is_read_closed))
        });
        closed == Some(true)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::H1(body) => body.is_end_stream(),
            Self::Tls(body) => body.is_end_stream(),
            Self::H2(body) => body.stream.is_end_stream(),
        }
    }
}

impl H2Body {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        if !self.data_ended {
            let Poll::Ready(data) = self.stream.poll_data(cx) else {
                self.ahead.set(0);
                return Poll::Pending;
            };
            match data {
                // Whoever does not read on leaves what the window lets the client send.
                Some(Ok(_)) if !self.ahead.raise(STREAM_WINDOW as usize) => {
                    return Poll::Ready(Some(Err(ClientBodyError::OutOfMemory)));
                }
                Some(Ok(data)) => {
                    // Opens the window for as much again; fails only on a stream that has ended.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => {
                    self.data_ended = true;
                    self.ahead.set(0);
                }
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        let trailers = trailers.transpose().map(|trailers| trailers.map(Frame::trailers));
        Poll::Ready(trailers.map(|trailers| trailers.map_err(ClientBodyError::H2)))
    }
}
