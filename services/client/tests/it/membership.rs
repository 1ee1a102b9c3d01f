//! Members against a registry that knows only the core protocol, and against one that stamps revisions.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use hubspoke_client::membership::{Families, MemberConfig, Reach, Timing};
use hubspoke_client::{LoadCounters, Member, Token};
use hubspoke_protocol::{HEART_BEAT_PATH, HUB_REVISION, PushMode, SERVICES_PATH, ServiceInfo};
use hubspoke_testkit::{FakeRegistry, RawConn, TestServer, eventually};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

/// A member that serves its routes and runs.
struct Running {
    member: Member,
    server: TestServer,
    http: reqwest::Client,
    _run: AbortOnDropHandle<()>,
}

fn member(registry: &str, timing: Timing) -> Member {
    let info = ServiceInfo {
        required_services: vec!["log".to_owned()],
        id: Some("visit-1".to_owned()),
        ..ServiceInfo::new("visit", "127.0.0.1:9")
    };
    let mut config = MemberConfig::new(registry, info);
    config.token = Some(Token::fixed("let-me-in").unwrap());
    config.timing = timing;
    Member::new(config, LoadCounters::default()).unwrap()
}

impl Running {
    async fn start(registry: &FakeRegistry, timing: Timing) -> Self {
        let member = member(&registry.url(), timing);
        let server = TestServer::start(member.routes()).await;
        let running = member.clone();
        let run = AbortOnDropHandle::new(tokio::spawn(async move { running.run(pending()).await }));
        Self { member, server, http: reqwest::Client::new(), _run: run }
    }

    /// Starts one that has registered.
    async fn joined(registry: &FakeRegistry, timing: Timing) -> Self {
        let running = Self::start(registry, timing).await;
        running.has_joined().await;
        running
    }

    async fn has_joined(&self) {
        eventually("joined", async || *self.member.joined().borrow()).await;
    }

    async fn heartbeat(&self, revision: Option<&str>) {
        let mut request = self.http.get(format!("{}{HEART_BEAT_PATH}", self.server.url()));
        if let Some(revision) = revision {
            request = request.header(HUB_REVISION, revision);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.text().await.unwrap(), r#"{"Status":"serving","Requests":0,"InFlight":0}"#);
    }

    async fn push(&self, method: Method, headers: &[(&str, &str)], body: &str) -> u16 {
        let url = format!("{}{SERVICES_PATH}", self.server.url());
        let mut request = self.http.request(method, url).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap().status().as_u16()
    }

    fn logs(&self) -> Vec<String> {
        let view = self.member.directory().view();
        view.instances("log").unwrap_or_default().iter().map(|log| log.addr.clone()).collect()
    }
}

/// The `Authorization` of a registry that the member has registered with.
fn bearer(registry: &FakeRegistry) -> String {
    format!("Bearer {}", registry.last().unwrap().push_key.unwrap())
}

/// Retries at once, and renews only if a test makes it.
fn quick() -> Timing {
    let mut timing = Timing::default();
    timing.renew = Duration::from_secs(60);
    timing.silence = Duration::from_secs(60);
    timing.timeout = Duration::from_secs(2);
    timing.backoff = Duration::from_millis(1);
    timing.backoff_max = Duration::from_millis(5);
    timing
}

const LOG_A: &str = r#"{"Name":"log","Addr":"127.0.0.1:1","RequiredServices":null}"#;
const LOG_B: &str = "{\"Name\":\"log\",\"Addr\":\"127.0.0.1:2\"}\n";

#[tokio::test]
async fn with_a_core_only_registry_events_are_applied_and_nothing_is_renewed() {
    let registry = FakeRegistry::start().await;
    registry.reply(200, None, &format!(r#"{{"log":[{LOG_A}]}}"#));
    let mut timing = quick();
    timing.renew = Duration::from_millis(5);
    let member = Running::joined(&registry, timing).await;
    assert_eq!(member.logs(), ["127.0.0.1:1"]);
    assert_eq!(member.push(Method::POST, &[], LOG_B).await, 200);
    assert_eq!(member.push(Method::POST, &[], LOG_B).await, 200);
    assert_eq!(member.logs(), ["127.0.0.1:1", "127.0.0.1:2"]);
    assert_eq!(member.push(Method::DELETE, &[], LOG_A).await, 200);
    assert_eq!(member.logs(), ["127.0.0.1:2"]);
    member.heartbeat(None).await;
    assert_eq!(registry.count(Method::POST), 1, "a core-only registry would list a renewing member twice");
}

#[tokio::test]
async fn a_member_registers_again_when_a_core_only_registry_falls_silent() {
    let registry = FakeRegistry::start().await;
    registry.reply(200, None, "null");
    let mut timing = quick();
    timing.silence = Duration::from_millis(40);
    let member = Running::start(&registry, timing).await;
    registry.registration(3).await;
    assert!(member.logs().is_empty());
}

#[tokio::test]
async fn a_heartbeat_with_a_newer_revision_makes_the_member_renew() {
    let registry = FakeRegistry::start().await;
    registry.reply(200, Some("1.5"), r#"{"log":[]}"#);
    registry.reply(200, Some("1.7"), &format!(r#"{{"log":[{LOG_A}]}}"#));
    registry.reply(200, Some("2.1"), &format!(r#"{{"log":[{LOG_B}]}}"#));
    let member = Running::joined(&registry, quick()).await;
    for known in ["1.4", "1.5", "no revision"] {
        member.heartbeat(Some(known)).await;
    }
    assert_eq!(registry.count(Method::POST), 1, "nothing new, no renewal");
    member.heartbeat(Some("1.7")).await;
    eventually("renewed", async || member.logs() == ["127.0.0.1:1"]).await;
    member.heartbeat(Some("2.1")).await;
    eventually("renewed in the new epoch, with the old instance carried over", async || {
        member.logs() == ["127.0.0.1:2", "127.0.0.1:1"]
    })
    .await;
    let sent = registry.last().unwrap();
    assert_eq!((sent.addr.as_str(), sent.id(), sent.push()), ("127.0.0.1:9", "visit-1", PushMode::Snapshot));
}

#[tokio::test]
async fn instances_of_the_lost_state_are_dropped_after_the_grace_period() {
    let registry = FakeRegistry::start().await;
    registry.reply(200, Some("1.5"), &format!(r#"{{"log":[{LOG_A}]}}"#));
    registry.reply(200, Some("2.1"), r#"{"log":[]}"#);
    let mut timing = quick();
    timing.epoch_grace = Duration::from_millis(50);
    let member = Running::start(&registry, timing).await;
    eventually("joined", async || member.logs() == ["127.0.0.1:1"]).await;
    member.heartbeat(Some("2.1")).await;
    eventually("dropped", async || member.logs().is_empty()).await;
}

#[tokio::test]
async fn pushes_need_the_push_key_if_the_registry_has_it() {
    let registry = FakeRegistry::start().await;
    registry.reply(200, Some("1.5"), r#"{"log":[]}"#);
    let member = Running::joined(&registry, quick()).await;
    let key = bearer(&registry);
    let snapshot = format!(r#"{{"Revision":"1.6","Services":{{"log":[{LOG_A}]}}}}"#);
    for wrong in ["Bearer x", "", &key[7..]] {
        assert_eq!(member.push(Method::PUT, &[("authorization", wrong)], &snapshot).await, 401);
        assert_eq!(member.push(Method::POST, &[("authorization", wrong)], LOG_B).await, 401);
    }
    assert!(member.logs().is_empty());
    let authorized = [("authorization", key.as_str())];
    assert_eq!(member.push(Method::PUT, &authorized, &snapshot).await, 200);
    assert_eq!(member.logs(), ["127.0.0.1:1"]);
    assert_eq!(member.push(Method::PUT, &authorized, "{").await, 400);
    assert_eq!(member.push(Method::PUT, &authorized, "{}").await, 422);
    let stamped = [("authorization", key.as_str()), (HUB_REVISION, "1.7")];
    assert_eq!(member.push(Method::POST, &stamped, LOG_B).await, 200);
    assert_eq!(member.logs(), ["127.0.0.1:1", "127.0.0.1:2"]);
    // A push of another epoch is not applied, but makes the member renew.
    registry.reply(200, Some("9.1"), r#"{"log":[]}"#);
    let other = snapshot.replace("1.6", "9.1");
    assert_eq!(member.push(Method::PUT, &authorized, &other).await, 200);
    eventually("renewed", async || registry.count(Method::POST) == 2).await;
}

#[tokio::test]
async fn a_member_retries_until_the_registry_answers_with_lists() {
    let registry = FakeRegistry::start().await;
    registry.reply(503, None, "starting");
    registry.reply(200, None, "<html>");
    registry.reply(200, None, r#"{"log":7}"#);
    registry.reply(200, Some("1.1"), &format!(r#"{{"log":[{LOG_A}]}}"#));
    let member = Running::joined(&registry, quick()).await;
    assert_eq!(member.logs(), ["127.0.0.1:1"]);
    assert_eq!(registry.count(Method::POST), 4);
}

/// Log lines of this thread while the guard lives.
fn log_lines() -> (Arc<Mutex<Vec<u8>>>, tracing::subscriber::DefaultGuard) {
    let lines = Arc::<Mutex<Vec<u8>>>::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter("hubspoke_client::membership=info")
        .with_writer(move || LineWriter(writer.clone()))
        .finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

struct LineWriter(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_failing_registry_is_logged_once_per_cause_and_once_when_it_is_back() {
    // While there is only one subscriber, tracing disables a callsite for all threads when a thread without a
    // subscriber reaches it first.
    let _second_subscriber = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let (lines, _guard) = log_lines();
    let registry = FakeRegistry::start().await;
    for _ in 0..3 {
        registry.reply(503, None, "starting");
    }
    for _ in 0..3 {
        registry.reply(401, None, r#"{"title":"Unauthorized","detail":"this needs the token"}"#);
    }
    registry.reply(200, Some("1.1"), "{}");
    let member = Running::start(&registry, quick()).await;
    let mut failing = member.member.failing();
    let refused =
        failing.wait_for(|error| error.as_ref().is_some_and(|error| error.to_string().contains("401")));
    let refused = refused.await.unwrap().as_ref().unwrap().to_string();
    assert_eq!(refused, "refused with 401 Unauthorized: this needs the token");
    member.has_joined().await;
    eventually("not failing", async || member.member.failing().borrow().is_none()).await;
    assert_eq!(registry.count(Method::POST), 7);
    assert!(registry.calls().iter().all(|call| call.authorization.as_deref() == Some("Bearer let-me-in")));
    let text = String::from_utf8(lines.lock().clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].contains("WARN") && lines[0].contains("503"), "{text}");
    assert!(lines[1].contains("WARN") && lines[1].contains("401"), "{text}");
    assert!(lines[2].contains("registered") && lines[3].contains("the registry is back"), "{text}");
}

#[tokio::test]
async fn a_push_without_the_key_is_refused_before_its_body_is_read() {
    let registry = FakeRegistry::start().await;
    registry.reply(200, Some("1.5"), r#"{"log":[]}"#);
    let member = Running::joined(&registry, quick()).await;
    for method in ["POST", "DELETE", "PUT"] {
        let mut conn = RawConn::connect(member.server.addr).await;
        let head =
            format!("{method} {SERVICES_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n{{");
        conn.write(head).await;
        let response = conn.response().await; // although most of the body is not sent
        assert!(response.starts_with("HTTP/1.1 401"), "{method}: {response}");
    }
}

#[tokio::test]
async fn an_event_has_a_smaller_size_limit_than_a_snapshot() {
    let registry = FakeRegistry::start().await;
    registry.reply(200, Some("1.5"), r#"{"log":[]}"#);
    let member = Running::joined(&registry, quick()).await;
    let key = bearer(&registry);
    let authorized = [("authorization", key.as_str())];
    let long = format!("{LOG_B}{}", " ".repeat(64 << 10));
    assert_eq!(member.push(Method::POST, &authorized, &long).await, 413);
    assert_eq!(member.push(Method::DELETE, &authorized, &long).await, 413);
    let snapshot = format!(r#"{{"Revision":"1.6","Services":{{"log":[{LOG_A}]}}{}}}"#, " ".repeat(3 << 20));
    assert_eq!(member.push(Method::PUT, &authorized, &snapshot).await, 200);
    assert_eq!(member.logs(), ["127.0.0.1:1"]);
}

#[tokio::test]
async fn deregistering_sends_the_id_and_ends_the_membership() {
    let registry = FakeRegistry::start().await;
    registry.reply(200, Some("1.1"), "{}");
    let member = Running::joined(&registry, quick()).await;
    member.member.deregister().await.unwrap();
    assert_eq!(registry.count(Method::DELETE), 1);
    assert_eq!(registry.last().unwrap().id.as_deref(), Some("visit-1"));
    assert!(!*member.member.joined().borrow());
}

#[test]
fn a_member_that_could_never_register_is_refused() {
    let mut config = MemberConfig::new("http://127.0.0.1:1", ServiceInfo::new("visit", ""));
    config.advertise.addr = Reach::Local { port: 80, families: Families::V4 };
    let new = |config: MemberConfig| Member::new(config, LoadCounters::default()).map(drop);
    assert!(new(config.clone()).is_ok());
    for registry in ["", "registry:20000", "https://registry", "ftp://x", "http://0.0.0.0:1"] {
        let mut invalid = config.clone();
        invalid.registry = registry.to_owned();
        let error = new(invalid).unwrap_err();
        assert!(error.to_string().contains("is not a valid URL"), "{registry}: {error}");
    }
    let mut invalid = config.clone();
    invalid.info = ServiceInfo::new("Visit", "");
    assert!(new(invalid).unwrap_err().to_string().starts_with("Name: "));
    config.advertise.addr = Reach::At("nowhere".to_owned());
    assert!(new(config).unwrap_err().to_string().starts_with("Addr: "));
}
