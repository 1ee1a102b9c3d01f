//! A member that uses `hubspoke-client`: it registers, renews, and follows the catalogue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hubspoke_client::membership::{MemberConfig, Timing};
use hubspoke_client::{LoadCounters, Member};
use hubspoke_protocol::ServiceInfo;
use hubspoke_testkit::eventually;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::fixture::TestRegistry;

pub(crate) struct LiveMember {
    pub(crate) addr: String,
    pub(crate) member: Member,
    faults: Arc<Faults>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

#[derive(Default)]
struct Faults {
    /// Pushes are ignored and answered with 500.
    loses_pushes: AtomicBool,
    /// Nothing is answered, as by a suspended process.
    suspended: AtomicBool,
}

impl LiveMember {
    pub(crate) async fn start(registry: &TestRegistry, name: &str, required: &[&str]) -> Self {
        Self::with(registry, name, required, Timing::default()).await
    }

    pub(crate) async fn with(registry: &TestRegistry, name: &str, required: &[&str], timing: Timing) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let info = ServiceInfo {
            required_services: required.iter().map(|&name| name.to_owned()).collect(),
            id: Some(format!("{name}-{:016x}", rand::random::<u64>())),
            ..ServiceInfo::new(name, &addr)
        };
        let mut config = MemberConfig::new(registry.url(""), info);
        config.timing = timing;
        let member = Member::new(config, LoadCounters::default()).unwrap();
        let faults = Arc::new(Faults::default());
        let app: Router = member.routes().layer(from_fn_with_state(faults.clone(), misbehave));
        let serve = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let runs = member.clone();
        let run = tokio::spawn(async move { runs.run(std::future::pending()).await });
        let live = Self { addr, member, faults, _tasks: [serve, run].map(AbortOnDropHandle::new) };
        let mut joined = live.member.joined();
        joined.wait_for(|joined| *joined).await.unwrap();
        live
    }

    /// Frequent renewals.
    pub(crate) fn quick() -> Timing {
        let mut timing = Timing::default();
        timing.renew = Duration::from_secs(1);
        timing.backoff_max = Duration::from_millis(500);
        timing
    }

    pub(crate) fn lose_pushes(&self, on: bool) {
        self.faults.loses_pushes.store(on, Relaxed);
    }

    pub(crate) fn suspend(&self, on: bool) {
        self.faults.suspended.store(on, Relaxed);
    }

    /// The addresses of a service that it knows.
    pub(crate) fn knows(&self, name: &str) -> Vec<String> {
        let view = self.member.directory().view();
        let mut addrs: Vec<_> =
            view.instances(name).unwrap_or_default().iter().map(|info| info.addr.clone()).collect();
        addrs.sort();
        addrs
    }

    /// Waits until it knows the same instances of a service as the catalogue.
    pub(crate) async fn follows(&self, registry: &TestRegistry, name: &str) {
        eventually(&format!("{} knows the same instances of {name} as the catalogue", self.addr), || async {
            self.knows(name) == registry.addrs(name).await
        })
        .await;
    }
}

async fn misbehave(State(faults): State<Arc<Faults>>, request: Request, next: Next) -> Response {
    while faults.suspended.load(Relaxed) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if faults.loses_pushes.load(Relaxed) && request.method() != Method::GET {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    next.run(request).await
}
