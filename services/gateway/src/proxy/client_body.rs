//! A client's body, whichever protocol it comes by.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;

use crate::server::h1::body::{BodyFailed, RequestBody};

/// A client's body.
pub(crate) enum ClientBody {
    None,
    /// Where nobody wants the rest of it, its connection reads it on.
    H1(RequestBody),
    /// HTTP/2 ends a stream without harm to what was said on it.
    H2(Incoming),
}

/// Why a client's body is not whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientBodyFailed {
    #[error(transparent)]
    H1(#[from] BodyFailed),
    #[error(transparent)]
    H2(#[from] hyper::Error),
}

impl ClientBody {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyFailed>>> {
        match self {
            Self::None => Poll::Ready(None),
            Self::H1(body) => body.poll_frame(cx).map_err(ClientBodyFailed::H1),
            Self::H2(body) => Pin::new(body).poll_frame(cx).map_err(ClientBodyFailed::H2),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::None => true,
            Self::H1(body) => body.is_end_stream(),
            Self::H2(body) => body.is_end_stream(),
        }
    }
}
