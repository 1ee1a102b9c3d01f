//! A client's request body, over HTTP/1 or HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use hubspoke_http1::{RequestBody, RequestBodyError};
use hyper::body::Incoming;
use tokio::net::tcp::OwnedReadHalf;

/// A client's request body.
pub(crate) enum ClientBody {
    /// Dropped before its end, its connection reads and discards the rest.
    H1(RequestBody<OwnedReadHalf>),
    /// Dropped before its end, its stream is reset.
    H2(Incoming),
}

/// Why a client's body is incomplete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientBodyError {
    #[error(transparent)]
    H1(#[from] RequestBodyError),
    #[error(transparent)]
    H2(#[from] hyper::Error),
}

impl ClientBody {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        match self {
            Self::H1(body) => Pin::new(body).poll_frame(cx).map_err(ClientBodyError::H1),
            Self::H2(body) => Pin::new(body).poll_frame(cx).map_err(ClientBodyError::H2),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::H1(body) => body.is_end_stream(),
            Self::H2(body) => body.is_end_stream(),
        }
    }
}
