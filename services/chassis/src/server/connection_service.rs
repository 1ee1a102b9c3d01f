use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use http::{HeaderValue, Request, Response, Version, header};
use hubspoke_protocol::HEART_BEAT_PATH;
use hubspoke_protocol::problem::ProblemType;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tower::Service;

use super::connection_state::ConnectionState;
use super::handle::ConnectionHandle;
use super::response_body::{ResponseBody, StreamSlot};
use crate::health::{LIVEZ_PATH, READYZ_PATH};
use crate::problem::Problem;

/// What is answered on connections beyond the limit, too: an orchestrator must not restart a process for being busy, nor
/// the registry remove it.
const VITAL_PATHS: [&str; 3] = [LIVEZ_PATH, READYZ_PATH, HEART_BEAT_PATH];

/// How long another request waits until its connection is no longer beyond the limit.
const PATIENCE: Duration = Duration::from_secs(1);

/// The app on one connection: counts its requests, and gives each the connection's handle.
#[derive(Clone)]
pub(super) struct ConnectionService {
    pub(super) app: Router,
    pub(super) connection: Arc<ConnectionState>,
    pub(super) handle: ConnectionHandle,
    /// The HTTP/2 requests that the port may have in flight.
    pub(super) streams: Arc<Semaphore>,
    /// How many of them one client may have.
    pub(super) streams_per_client: usize,
}

impl ConnectionService {
    /// Whether a request has to wait: the connection is beyond the limit, and the process can do without an answer.
    fn has_to_wait(&self, request: &Request<Incoming>) -> bool {
        self.connection.is_reserved() && !VITAL_PATHS.contains(&request.uri().path())
    }
}

impl Service<Request<Incoming>> for ConnectionService {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(())) // routers are always ready
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        let in_flight = self.connection.begin_request();
        if self.has_to_wait(&request) {
            let mut service = self.clone();
            return Box::pin(async move {
                if tokio::time::timeout(PATIENCE, service.connection.admitted()).await.is_ok() {
                    return service.call(request).await;
                }
                let response = refusal(ProblemType::TooManyConnections, "too many connections; retry later");
                Ok(response.map(|body| ResponseBody::http1(body, in_flight)))
            });
        }
        let is_http2 = request.version() == Version::HTTP_2;
        request.extensions_mut().insert(self.handle.clone());
        if !is_http2 {
            let response = self.app.call(request);
            return Box::pin(async { Ok(response.await?.map(|body| ResponseBody::http1(body, in_flight))) });
        }
        match StreamSlot::acquire(in_flight, &self.streams, self.streams_per_client) {
            Some(slot) => {
                let response = self.app.call(request);
                Box::pin(async { Ok(response.await?.map(|body| ResponseBody::http2(body, slot))) })
            }
            None => {
                let response =
                    refusal(ProblemType::Overloaded, "too many HTTP/2 requests in flight; retry later");
                Box::pin(async { Ok(response.map(ResponseBody::uncounted)) })
            }
        }
    }
}

fn refusal(cause: ProblemType, detail: &str) -> Response<Body> {
    let mut response = Problem::new(cause, detail).retry_after(1).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
