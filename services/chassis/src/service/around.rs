//! Middleware that counts requests as in flight until the last byte of the reply is gone, streams included.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hub_client::LoadCounters;
use hub_client::load::InFlight;

pub(super) async fn count(State(load): State<LoadCounters>, request: Request, next: Next) -> Response {
    let in_flight = load.start();
    next.run(request).await.map(|body| Body::new(Counted { body, _in_flight: in_flight }))
}

struct Counted {
    body: Body,
    _in_flight: InFlight,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
