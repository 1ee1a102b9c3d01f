//! What every request goes through, as one layer around each route. From the outside in: `Hub-Instance` on the
//! reply; the framework's rejections as problem documents; the span; the duration; a panic as a reply; the count of
//! requests in flight; the bounds on the request's body.
//!
//! One layer, because each would be one more box around a route, and axum clones a route with all its boxes for each
//! request, at every layer again.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request};
use axum::http::HeaderValue;
use axum::response::Response;
use axum::routing::Route;
use futures_util::FutureExt;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hubspoke_client::LoadCounters;
use hubspoke_client::load::InFlight;
use hubspoke_client::trace::{OTHER_METHOD, known_method};
use hubspoke_protocol::HUB_INSTANCE;
use tower::{Layer, Service};
use tower_http::timeout::TimeoutBody;

use crate::metrics::{Metrics, RouteDurations};
use crate::server::linger::Lingering;
use crate::{problem, trace};

/// A request's body must make progress within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The layer, for `Router::layer`.
#[derive(Clone)]
pub(super) struct Around(Arc<Shared>);

struct Shared {
    /// The `Id`, where it fits into a header.
    id: Option<HeaderValue>,
    metrics: Metrics,
    /// Where requests are counted; control routes are not.
    load: Option<LoadCounters>,
}

impl Around {
    pub(super) fn new(id: &str, metrics: Metrics, load: Option<LoadCounters>) -> Self {
        Self(Arc::new(Shared { id: HeaderValue::from_str(id).ok(), metrics, load }))
    }
}

impl Layer<Route> for Around {
    type Service = Wrapped;

    fn layer(&self, route: Route) -> Wrapped {
        let durations = self.0.metrics.route_durations();
        Wrapped { route, here: Arc::new(Here { shared: self.0.clone(), durations }) }
    }
}

/// A route in the layer.
#[derive(Clone)]
pub(super) struct Wrapped {
    route: Route,
    here: Arc<Here>,
}

struct Here {
    shared: Arc<Shared>,
    durations: RouteDurations,
}

impl Service<Request> for Wrapped {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(())) // routes always are
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let start = Instant::now();
        let here = self.here.clone();
        let uri = request.uri().clone();
        let method = known_method(request.method().as_str()).unwrap_or(OTHER_METHOD);
        // Without a template there is no name for a span or a series: what nobody serves is neither traced nor timed.
        let template = request.extensions().get::<MatchedPath>().cloned();
        let span = template
            .as_ref()
            .map(|template| trace::Traced::begin(here.shared.metrics.source(), &request, template.as_str()));
        let in_flight = here.shared.load.as_ref().map(LoadCounters::start);
        let served = self.route.call(request.map(bounded));
        Box::pin(async move {
            let served = AssertUnwindSafe(served).catch_unwind();
            let caught = match &span {
                Some(span) => span.around(served).await,
                None => served.await,
            };
            let response = match caught {
                Ok(Ok(response)) => response,
                Err(panic) => problem::panicked(panic),
            };
            let status = response.status().as_u16();
            if let Some(template) = template {
                here.durations.record(method, template.as_str(), status, start.elapsed());
            }
            if let Some(span) = span {
                span.served(status);
            }
            let mut response = problem::document(uri.path(), counted(response, in_flight)).await;
            if let Some(id) = &here.shared.id {
                response.headers_mut().entry(HUB_INSTANCE).or_insert_with(|| id.clone());
            }
            Ok(response)
        })
    }
}

/// A body that must make progress, and is read on for a while where the handler leaves it.
fn bounded(body: Body) -> Body {
    if body.is_end_stream() { body } else { Body::new(TimeoutBody::new(BODY_TIMEOUT, Lingering::new(body))) }
}

/// Counts a request as in flight until the last byte of the reply is gone, streams included.
fn counted(response: Response, in_flight: Option<InFlight>) -> Response {
    match in_flight {
        Some(in_flight) => response.map(|body| Body::new(Counted { body, _in_flight: in_flight })),
        None => response,
    }
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
