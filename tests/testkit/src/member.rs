//! A member whose answers the test sets.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hubspoke_protocol::{HUB_INSTANCE, HUB_REVISION, PushMode, Revision, ServiceInfo};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::server::TestServer;
use crate::wait::eventually;

/// How a [`FakeMember`] answers a heartbeat or a push.
#[derive(Debug, Clone)]
pub enum MemberReply {
    /// 200, no body.
    Ok,
    /// 200 with this body.
    Body(String),
    /// 200 with this `Hub-Instance`.
    WithId(&'static str),
    /// This status, no body.
    Status(u16),
    /// 200 after this time.
    Delayed(Duration),
    /// 200 with a body of 1 MiB.
    Megabyte,
    /// 302 to a closed port.
    Redirect,
    /// Never.
    Hang,
}

/// A push that a [`FakeMember`] received.
#[derive(Debug, Clone)]
pub struct Push {
    /// `POST`, `DELETE` or `PUT`.
    pub method: Method,
    /// Its `Hub-Revision`.
    pub revision: Revision,
    /// The header of this name.
    pub authorization: Option<String>,
    /// The body.
    pub body: Value,
    /// Whether it was answered with success.
    pub acknowledged: bool,
}

/// A stand-in for a member: answers heartbeats and pushes, and records them. It registers nothing by itself; see
/// [`FakeMember::info`]. Clones share everything.
///
/// ```
/// use hubspoke_testkit::{FakeMember, MemberReply};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let member = FakeMember::start().await;
/// member.on_heartbeat(MemberReply::Status(500));
/// let info = member.info("log", &["visit"]);
/// assert_eq!((info.name.as_str(), info.addr == member.addr), ("log", true));
/// // … register `info` with a registry under test, then:
/// assert!(member.heartbeats().is_empty() && member.pushes().is_empty());
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FakeMember {
    /// `host:port`.
    pub addr: String,
    record: Arc<Mutex<Record>>,
    _server: Arc<TestServer>,
}

#[derive(Debug)]
struct Record {
    heartbeat_reply: MemberReply,
    push_reply: MemberReply,
    pushes: Vec<Push>,
    heartbeats: Vec<Revision>,
}

impl FakeMember {
    /// One on a free port that answers everything with 200.
    pub async fn start() -> Self {
        Self::on("127.0.0.1:0").await
    }

    /// The same at an address.
    pub async fn on(addr: &str) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let record = Arc::new(Mutex::new(Record {
            heartbeat_reply: MemberReply::Ok,
            push_reply: MemberReply::Ok,
            pushes: Vec::new(),
            heartbeats: Vec::new(),
        }));
        let addr = listener.local_addr().unwrap().to_string();
        let server = TestServer::on(listener, Router::new().fallback(answer).with_state(record.clone()));
        Self { addr, record, _server: Arc::new(server) }
    }

    /// What it would register as `name`: the core protocol, so pushes are events.
    pub fn info(&self, name: &str, required: &[&str]) -> ServiceInfo {
        let required_services = required.iter().map(|&name| name.to_owned()).collect();
        ServiceInfo { required_services, ..ServiceInfo::new(name, &self.addr) }
    }

    /// The same with pushes as snapshots, under the push key `push-key`.
    pub fn snapshot_info(&self, name: &str, required: &[&str]) -> ServiceInfo {
        let (push, push_key) = (Some(PushMode::Snapshot), Some("push-key".to_owned()));
        ServiceInfo { push, push_key, ..self.info(name, required) }
    }

    /// How it answers heartbeats from now on.
    pub fn on_heartbeat(&self, reply: MemberReply) {
        self.record.lock().heartbeat_reply = reply;
    }

    /// How it answers pushes from now on.
    pub fn on_push(&self, reply: MemberReply) {
        self.record.lock().push_reply = reply;
    }

    /// All pushes so far, also those that it refused.
    pub fn pushes(&self) -> Vec<Push> {
        self.record.lock().pushes.clone()
    }

    /// Method and address of each push in event mode.
    pub fn events(&self) -> Vec<(String, String)> {
        let event = |push: &Push| (push.method.to_string(), push.body["Addr"].as_str().unwrap().to_owned());
        self.pushes().iter().map(event).collect()
    }

    /// The addresses in the newest list of a service that it acknowledged.
    pub fn newest(&self, service: &str) -> Option<Vec<String>> {
        let pushes = self.pushes();
        let mut acknowledged = pushes.iter().rev().filter(|push| push.acknowledged);
        let list = acknowledged.find_map(|push| push.body["Services"].get(service))?.as_array().unwrap();
        Some(list.iter().map(|info| info["Addr"].as_str().unwrap().to_owned()).collect())
    }

    /// Waits until it has been sent `count` more heartbeats.
    pub async fn more_heartbeats(&self, count: usize) {
        let wanted = self.heartbeats().len() + count;
        eventually("more heartbeats", async || self.heartbeats().len() >= wanted).await;
    }

    /// The revision of each heartbeat so far.
    pub fn heartbeats(&self) -> Vec<Revision> {
        self.record.lock().heartbeats.clone()
    }
}

async fn answer(
    State(record): State<Arc<Mutex<Record>>>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let revision = headers[HUB_REVISION].to_str().unwrap().parse().unwrap();
    let reply = {
        let mut record = record.lock();
        if method == Method::GET {
            record.heartbeats.push(revision);
            record.heartbeat_reply.clone()
        } else {
            let authorization = headers.get(header::AUTHORIZATION);
            let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
            let body = serde_json::from_slice(&body).unwrap();
            let acknowledged = !matches!(record.push_reply, MemberReply::Status(_) | MemberReply::Hang);
            record.pushes.push(Push { method, revision, authorization, body, acknowledged });
            record.push_reply.clone()
        }
    };
    match reply {
        MemberReply::Ok => StatusCode::OK.into_response(),
        MemberReply::Body(body) => body.into_response(),
        MemberReply::WithId(id) => [(HUB_INSTANCE, id)].into_response(),
        MemberReply::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        MemberReply::Delayed(time) => {
            tokio::time::sleep(time).await;
            StatusCode::OK.into_response()
        }
        MemberReply::Megabyte => vec![b'x'; 1 << 20].into_response(),
        MemberReply::Redirect => (StatusCode::FOUND, [("location", "http://127.0.0.1:1/")]).into_response(),
        MemberReply::Hang => std::future::pending().await,
    }
}
