//! A registry whose answers the test sets.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hubspoke_protocol::{
    HUB_REVISION, PushMode, Revision, SERVICES_PATH, ServiceInfo, ServiceLists, Snapshot,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::raw::{self, RawConn};
use crate::server::TestServer;
use crate::wait::eventually;

/// A stand-in for the registry: answers `POST` and `DELETE /services`, records both, and sends a push when a test
/// [publishes](Self::publish) a change. It sends no heartbeats. Clones share everything.
///
/// ```
/// use hubspoke_protocol::ServiceInfo;
/// use hubspoke_testkit::{FakeRegistry, RawConn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let registry = FakeRegistry::start().await;
/// registry.set("log", &[ServiceInfo::new("log", "127.0.0.1:20002")]);
/// // A member under test would do this:
/// let body = r#"{"Name":"visit","Addr":"127.0.0.1:20003","RequiredServices":["log"]}"#;
/// let head = format!("POST /services HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
/// let mut conn = RawConn::connect(registry.addr()).await;
/// conn.write(head + body).await;
/// assert!(conn.response().await.ends_with(
///     r#"{"log":[{"Name":"log","Addr":"127.0.0.1:20002","RequiredServices":[]}]}"#
/// ));
/// assert_eq!(registry.registration(1).await.name, "visit");
/// assert_eq!(registry.methods(), ["POST"]);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FakeRegistry {
    state: Arc<Mutex<FakeCatalog>>,
    server: Arc<TestServer>,
}

/// A call that a [`FakeRegistry`] received.
#[derive(Debug, Clone)]
pub struct RegistryCall {
    /// `POST` or `DELETE`.
    pub method: Method,
    /// The body.
    pub info: ServiceInfo,
    /// The header of this name.
    pub authorization: Option<String>,
    /// When it came.
    pub at: Instant,
}

#[derive(Debug, Default)]
struct FakeCatalog {
    core_only: bool,
    lists_members: bool,
    /// How many changes were made: the revision is `1.N`.
    changes: u64,
    lists: BTreeMap<String, Vec<ServiceInfo>>,
    members: Vec<ServiceInfo>,
    calls: Vec<RegistryCall>,
    replies: VecDeque<(u16, Option<String>, String)>,
}

impl FakeRegistry {
    /// One that stamps its answers with a revision, as ours does: members take snapshots and renew every 15 s.
    pub async fn start() -> Self {
        Self::at("127.0.0.1:0").await
    }

    /// The same, at an address.
    pub async fn at(addr: &str) -> Self {
        let state = Arc::<Mutex<FakeCatalog>>::default();
        let routes = Router::new().route(SERVICES_PATH, any(answer)).with_state(state.clone());
        let listener = TcpListener::bind(addr).await.unwrap();
        Self { state, server: Arc::new(TestServer::on(listener, routes)) }
    }

    /// One that knows only the core protocol: no revisions, so members never renew.
    pub async fn core_only() -> Self {
        let registry = Self::start().await;
        registry.state.lock().core_only = true;
        registry
    }

    /// `host:port`.
    pub fn addr(&self) -> String {
        self.server.addr.to_string()
    }

    /// Its base URL, for `registry.url`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// From now on, lists also contain the members that have registered and not left.
    pub fn list_members(&self) {
        self.state.lock().lists_members = true;
    }

    /// Answers with `status`, this revision and `body` instead. Several calls make a queue, whose last answer
    /// stays.
    pub fn reply(&self, status: u16, revision: Option<&str>, body: &str) {
        let reply = (status, revision.map(str::to_owned), body.to_owned());
        self.state.lock().replies.push_back(reply);
    }

    /// Makes these the instances of a service, for the answers from now on.
    pub fn set(&self, service: &str, instances: &[ServiceInfo]) {
        let mut state = self.state.lock();
        state.changes += 1;
        state.lists.insert(service.to_owned(), instances.to_vec());
    }

    /// [`FakeRegistry::set`], and a push of all lists to every member that takes snapshots. Each has acknowledged
    /// it when this returns.
    pub async fn publish(&self, service: &str, instances: &[ServiceInfo]) {
        self.set(service, instances);
        let (members, snapshot) = {
            let state = self.state.lock();
            let snapshot = Snapshot { revision: state.revision(), services: state.lists(None) };
            (state.members.clone(), serde_json::to_string(&snapshot).unwrap())
        };
        for member in members.iter().filter(|member| member.push() == PushMode::Snapshot) {
            let key = member.push_key.as_deref().unwrap_or_default();
            let mut conn = RawConn::connect(member.control_addr()).await;
            conn.write(format!(
                "PUT {SERVICES_PATH} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {key}\r\n\
                 Content-Length: {}\r\n\r\n{snapshot}",
                member.control_addr(),
                snapshot.len(),
            ))
            .await;
            let response = conn.response().await;
            assert_eq!(raw::status(&response), 200, "{response}");
        }
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<RegistryCall> {
        self.state.lock().calls.clone()
    }

    /// The methods of all calls so far.
    pub fn methods(&self) -> Vec<String> {
        self.state.lock().calls.iter().map(|call| call.method.to_string()).collect()
    }

    /// How many calls had this method.
    pub fn count(&self, method: Method) -> usize {
        self.state.lock().calls.iter().filter(|call| call.method == method).count()
    }

    /// The instances that have registered and not left, in order of their first registration.
    pub fn members(&self) -> Vec<ServiceInfo> {
        self.state.lock().members.clone()
    }

    /// The body of the last call.
    pub fn last(&self) -> Option<ServiceInfo> {
        self.state.lock().calls.last().map(|call| call.info.clone())
    }

    /// Waits for the `n`th registration or renewal (from 1); returns what it sent.
    pub async fn registration(&self, n: usize) -> ServiceInfo {
        let nth = || {
            let state = self.state.lock();
            let mut posts = state.calls.iter().filter(|call| call.method == Method::POST);
            posts.nth(n - 1).map(|call| call.info.clone())
        };
        eventually("a member registers", async || nth().is_some()).await;
        nth().unwrap()
    }
}

impl FakeCatalog {
    fn revision(&self) -> Revision {
        Revision { epoch: 1, n: self.changes }
    }

    /// The lists that a member with these required services gets; `None`: all there are.
    fn lists(&self, required: Option<&[String]>) -> ServiceLists {
        let mut lists = self.lists.clone();
        for member in self.members.iter().filter(|_| self.lists_members) {
            lists.entry(member.name.clone()).or_default().push(member.public());
        }
        if let Some(required) = required {
            let wanted = |name: &String| required.iter().any(|wanted| wanted == "*" || wanted == name);
            lists.retain(|name, _| wanted(name));
            for name in required.iter().filter(|name| *name != "*") {
                lists.entry(name.clone()).or_default();
            }
        }
        ServiceLists(lists)
    }
}

async fn answer(
    State(state): State<Arc<Mutex<FakeCatalog>>>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let info: ServiceInfo = serde_json::from_slice(&body).unwrap();
    let authorization = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    let mut state = state.lock();
    let known =
        state.members.iter().position(|member| (&member.name, &member.addr) == (&info.name, &info.addr));
    match (known, method == Method::DELETE) {
        (Some(at), true) => drop(state.members.remove(at)),
        (Some(at), false) => state.members[at] = info.clone(),
        (None, false) => state.members.push(info.clone()),
        (None, true) => {}
    }
    state.calls.push(RegistryCall { method, info: info.clone(), authorization, at: Instant::now() });
    let scripted =
        if state.replies.len() > 1 { state.replies.pop_front() } else { state.replies.front().cloned() };
    let (status, revision, body) = scripted.unwrap_or_else(|| {
        let revision = (!state.core_only).then(|| state.revision().to_string());
        (200, revision, serde_json::to_string(&state.lists(Some(&info.required_services))).unwrap())
    });
    let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
    if let Some(revision) = revision {
        response.headers_mut().insert(HUB_REVISION, revision.parse().unwrap());
    }
    response
}
