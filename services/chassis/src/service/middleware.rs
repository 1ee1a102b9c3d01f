//! The middleware around each route, as one layer. From the outside in: `Hub-Instance` on the response; the
//! framework's rejections as problem documents; the span; the duration; a panic as a response; the count of requests
//! in flight; what web pages may not ask for; the limits of the request's body.
//!
//! One layer, because every layer is one more box around each route, and axum clones a route with all its boxes for
//! each request.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request};
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
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
use crate::problem::{self, Problem};
use crate::server::DiscardOnDrop;
use crate::site::SiteRule;
use crate::trace::RequestTrace;

/// Longest pause between two frames of a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The layer, for `Router::layer`.
#[derive(Clone)]
pub(super) struct Middleware(Arc<ServiceContext>);

struct ServiceContext {
    /// The `Id`, if it is a valid header value.
    id: Option<HeaderValue>,
    metrics: Metrics,
    /// Counts requests; `None` for control routes.
    load: Option<LoadCounters>,
    site: SiteRule,
}

impl Middleware {
    pub(super) fn new(id: &str, metrics: Metrics, load: Option<LoadCounters>, site: SiteRule) -> Self {
        Self(Arc::new(ServiceContext { id: HeaderValue::from_str(id).ok(), metrics, load, site }))
    }
}

impl Layer<Route> for Middleware {
    type Service = MiddlewareRoute;

    fn layer(&self, route: Route) -> MiddlewareRoute {
        let durations = self.0.metrics.route_durations();
        MiddlewareRoute { route, context: Arc::new(RouteContext { service: self.0.clone(), durations }) }
    }
}

/// A route with the middleware around it.
#[derive(Clone)]
pub(super) struct MiddlewareRoute {
    route: Route,
    context: Arc<RouteContext>,
}

struct RouteContext {
    service: Arc<ServiceContext>,
    durations: RouteDurations,
}

impl Service<Request> for MiddlewareRoute {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(())) // routes are always ready
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let start = Instant::now();
        let context = self.context.clone();
        let uri = request.uri().clone();
        let method = known_method(request.method().as_str()).unwrap_or(OTHER_METHOD);
        // Spans and series are named by the route's template. A request that matches no route gets neither.
        let template = request.extensions().get::<MatchedPath>().cloned();
        let trace = template.as_ref().map(|template| {
            RequestTrace::start(context.service.metrics.instance(), &request, template.as_str())
        });
        let in_flight = context.service.load.as_ref().map(LoadCounters::start);
        let request = request.map(limited);
        let served = context.service.site.check(&request).map(|()| self.route.call(request));
        let served = async {
            match served {
                Ok(served) => served.await,
                Err(error) => Ok(Problem::from(error).into_response()),
            }
        };
        Box::pin(async move {
            let served = AssertUnwindSafe(served).catch_unwind();
            let caught = match &trace {
                Some(trace) => trace.run(served).await,
                None => served.await,
            };
            let response = match caught {
                Ok(Ok(response)) => response,
                Err(panic) => problem::panicked(panic),
            };
            let status = response.status().as_u16();
            if let Some(template) = template {
                context.durations.record(method, template.as_str(), status, start.elapsed());
            }
            if let Some(trace) = trace {
                trace.record_status(status);
            }
            let mut response = problem::document(uri.path(), counted(response, in_flight)).await;
            if let Some(id) = &context.service.id {
                response.headers_mut().entry(HUB_INSTANCE).or_insert_with(|| id.clone());
            }
            Ok(response)
        })
    }
}

/// A body that must make progress, and whose rest is discarded if the handler does not read it.
fn limited(body: Body) -> Body {
    if body.is_end_stream() {
        body
    } else {
        Body::new(TimeoutBody::new(BODY_TIMEOUT, DiscardOnDrop::new(body)))
    }
}

/// Counts a request as in flight until the last byte of its response has been sent, streams included.
fn counted(response: Response, in_flight: Option<InFlight>) -> Response {
    match in_flight {
        Some(in_flight) => response.map(|body| Body::new(CountedBody { body, _in_flight: in_flight })),
        None => response,
    }
}

struct CountedBody {
    body: Body,
    _in_flight: InFlight,
}

impl HttpBody for CountedBody {
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
