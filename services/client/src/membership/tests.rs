//! Members against a registry that knows only the core, and against one that stamps revisions: small fakes on real
//! sockets, whose replies each test sets.

use std::collections::VecDeque;
use std::future::pending;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use hubspoke_protocol::{HEART_BEAT_PATH, HUB_REVISION};

/// A registry that answers what it is told to, and remembers what it was asked.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<FakeState>>);

#[derive(Default)]
struct FakeState {
    /// Status, stamp and body of the next replies; the last one stays.
    replies: VecDeque<(u16, Option<&'static str>, String)>,
    calls: Vec<(Method, ServiceInfo)>,
}

impl Fake {
    fn reply(&self, status: u16, stamp: Option<&'static str>, body: &str) {
        self.0.lock().unwrap().replies.push_back((status, stamp, body.to_owned()));
    }

    fn calls(&self, method: Method) -> usize {
        self.0.lock().unwrap().calls.iter().filter(|(called, _)| *called == method).count()
    }

    fn last(&self) -> ServiceInfo {
        self.0.lock().unwrap().calls.last().unwrap().1.clone()
    }

    async fn serve(&self) -> String {
        let app = Router::new().fallback(answer).with_state(self.clone());
        spawn_server(app).await.0
    }
}

async fn answer(State(fake): State<Fake>, method: Method, body: Bytes) -> Response {
    let mut state = fake.0.lock().unwrap();
    state.calls.push((method, serde_json::from_slice(&body).unwrap()));
    let reply =
        if state.replies.len() > 1 { state.replies.pop_front() } else { state.replies.front().cloned() };
    let (status, stamp, body) = reply.unwrap();
    let mut response = (axum::http::StatusCode::from_u16(status).unwrap(), body).into_response();
    if let Some(stamp) = stamp {
        response.headers_mut().insert(HUB_REVISION, stamp.parse().unwrap());
    }
    response
}

async fn spawn_server(app: Router) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (url, tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }))
}

/// A member that serves its routes and runs.
struct Running {
    member: Member,
    url: String,
    http: reqwest::Client,
    _run: JoinHandle<()>,
}

fn prepared(registry: &str, timing: Timing) -> Member {
    Member::new(
        MemberConfig {
            registry: registry.to_owned(),
            token: Some("let-me-in".to_owned()),
            info: ServiceInfo {
                required_services: vec!["log".to_owned()],
                id: Some("visit-1".to_owned()),
                ..ServiceInfo::new("visit", "")
            },
            advertise: Advertise::at("127.0.0.1:9"),
            timing,
        },
        LoadCounters::default(),
    )
    .unwrap()
}

async fn member(registry: &str, timing: Timing) -> Running {
    let member = prepared(registry, timing);
    let (url, _) = spawn_server(member.routes()).await;
    let running = member.clone();
    let run = tokio::spawn(async move { running.run(pending()).await });
    Running { member, url, http: reqwest::Client::new(), _run: run }
}

impl Running {
    async fn beat(&self, stamp: Option<&str>) {
        let mut request = self.http.get(format!("{}{HEART_BEAT_PATH}", self.url));
        if let Some(stamp) = stamp {
            request = request.header(HUB_REVISION, stamp);
        }
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.text().await.unwrap(), r#"{"Status":"serving","Requests":0,"InFlight":0}"#);
    }

    async fn push(&self, method: Method, headers: &[(&str, &str)], body: &str) -> u16 {
        let mut request =
            self.http.request(method, format!("{}{SERVICES_PATH}", self.url)).body(body.to_owned());
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

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn quick() -> Timing {
    let ms = Duration::from_millis;
    Timing {
        renew: ms(60_000),
        silence: ms(60_000),
        timeout: ms(2_000),
        backoff: ms(1),
        backoff_max: ms(5),
        keep: ms(20_000),
    }
}

const LOG_A: &str = r#"{"Name":"log","Addr":"127.0.0.1:1","RequiredServices":null}"#;
const LOG_B: &str = "{\"Name\":\"log\",\"Addr\":\"127.0.0.1:2\"}\n";

#[tokio::test]
async fn with_a_core_only_registry_events_count_and_nothing_is_renewed() {
    let fake = Fake::default();
    fake.reply(200, None, &format!(r#"{{"log":[{LOG_A}]}}"#));
    let member = member(&fake.serve().await, Timing { renew: Duration::from_millis(5), ..quick() }).await;
    eventually("joined", || *member.member.joined().borrow()).await;
    assert_eq!(member.logs(), ["127.0.0.1:1"]);
    assert_eq!(member.push(Method::POST, &[], LOG_B).await, 200);
    assert_eq!(member.push(Method::POST, &[], LOG_B).await, 200);
    assert_eq!(member.logs(), ["127.0.0.1:1", "127.0.0.1:2"]);
    assert_eq!(member.push(Method::DELETE, &[], LOG_A).await, 200);
    assert_eq!(member.logs(), ["127.0.0.1:2"]);
    member.beat(None).await;
    assert_eq!(fake.calls(Method::POST), 1, "a core-only registry would list a renewal twice");
}

#[tokio::test]
async fn a_core_only_registry_that_falls_silent_is_registered_with_again() {
    let fake = Fake::default();
    fake.reply(200, None, "null");
    let timing = Timing { silence: Duration::from_millis(40), ..quick() };
    let member = member(&fake.serve().await, timing).await;
    eventually("registered again, twice", || fake.calls(Method::POST) >= 3).await;
    assert!(member.logs().is_empty());
}

#[tokio::test]
async fn a_heartbeat_postpones_the_silence_that_is_waited_for() {
    let silence = Duration::from_millis(200);
    let member = prepared("http://127.0.0.1:9", Timing { silence, ..quick() });
    *member.last_heartbeat() = Instant::now() - silence * 3 / 4;
    let ((), heard) = tokio::join!(member.silence(), async {
        let heard = Instant::now();
        member.heard(None);
        heard
    });
    assert!(heard.elapsed() >= silence, "silent after {:?}", heard.elapsed());
}

#[tokio::test]
async fn a_heartbeat_that_shows_a_newer_revision_makes_the_member_renew() {
    let fake = Fake::default();
    fake.reply(200, Some("1.5"), r#"{"log":[]}"#);
    fake.reply(200, Some("1.7"), &format!(r#"{{"log":[{LOG_A}]}}"#));
    fake.reply(200, Some("2.1"), &format!(r#"{{"log":[{LOG_B}]}}"#));
    let member = member(&fake.serve().await, quick()).await;
    eventually("joined", || *member.member.joined().borrow()).await;
    for known in ["1.4", "1.5", "no revision"] {
        member.beat(Some(known)).await;
    }
    assert_eq!(fake.calls(Method::POST), 1, "nothing new, nothing asked");
    member.beat(Some("1.7")).await;
    eventually("renewed", || member.logs() == ["127.0.0.1:1"]).await;
    member.beat(Some("2.1")).await;
    eventually("renewed in the new epoch, keeping what was", || {
        member.logs() == ["127.0.0.1:2", "127.0.0.1:1"]
    })
    .await;
    let sent = fake.last();
    assert_eq!((sent.addr.as_str(), sent.id(), sent.push()), ("127.0.0.1:9", "visit-1", PushMode::Snapshot));
}

#[tokio::test]
async fn what_the_lost_state_held_is_forgotten_after_the_grace() {
    let fake = Fake::default();
    fake.reply(200, Some("1.5"), &format!(r#"{{"log":[{LOG_A}]}}"#));
    fake.reply(200, Some("2.1"), r#"{"log":[]}"#);
    let timing = Timing { keep: Duration::from_millis(50), ..quick() };
    let member = member(&fake.serve().await, timing).await;
    eventually("joined", || member.logs() == ["127.0.0.1:1"]).await;
    member.beat(Some("2.1")).await;
    eventually("forgotten", || member.logs().is_empty()).await;
}

#[tokio::test]
async fn pushes_need_the_key_where_the_registry_has_it() {
    let fake = Fake::default();
    fake.reply(200, Some("1.5"), r#"{"log":[]}"#);
    let member = member(&fake.serve().await, quick()).await;
    eventually("joined", || *member.member.joined().borrow()).await;
    let key = format!("Bearer {}", fake.last().push_key.unwrap());
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
    // Of another epoch: not believed, but a reason to ask.
    fake.reply(200, Some("9.1"), r#"{"log":[]}"#);
    let other = snapshot.replace("1.6", "9.1");
    assert_eq!(member.push(Method::PUT, &authorized, &other).await, 200);
    eventually("asked", || fake.calls(Method::POST) == 2).await;
}

#[tokio::test]
async fn a_registry_that_is_down_refuses_or_babbles_is_asked_until_it_works() {
    let fake = Fake::default();
    fake.reply(503, None, "starting");
    fake.reply(200, None, "<html>");
    fake.reply(200, None, r#"{"log":7}"#);
    fake.reply(200, Some("1.1"), &format!(r#"{{"log":[{LOG_A}]}}"#));
    let member = member(&fake.serve().await, quick()).await;
    eventually("joined", || *member.member.joined().borrow()).await;
    assert_eq!(member.logs(), ["127.0.0.1:1"]);
    assert_eq!(fake.calls(Method::POST), 4);
}

/// What is logged on this thread, while the guard lives.
fn log_lines() -> (Arc<Mutex<Vec<u8>>>, tracing::subscriber::DefaultGuard) {
    let lines = Arc::<Mutex<Vec<u8>>>::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter("hubspoke_client::membership=info")
        .with_writer(move || Lines(writer.clone()))
        .finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn trouble_with_the_registry_is_said_once_and_again_when_it_is_another_then_that_it_is_back() {
    let (lines, _guard) = log_lines();
    let fake = Fake::default();
    for _ in 0..3 {
        fake.reply(503, None, "starting");
    }
    for _ in 0..3 {
        fake.reply(401, None, r#"{"title":"Unauthorized","detail":"this needs the token"}"#);
    }
    fake.reply(200, Some("1.1"), "{}");
    let member = member(&fake.serve().await, quick()).await;
    let mut failing = member.member.failing();
    let refused =
        failing.wait_for(|error| error.as_ref().is_some_and(|error| error.to_string().contains("401")));
    let refused = refused.await.unwrap().as_ref().unwrap().to_string();
    assert_eq!(refused, "refused with 401 Unauthorized: this needs the token");
    eventually("joined", || *member.member.joined().borrow()).await;
    eventually("not failing", || member.member.failing().borrow().is_none()).await;
    assert_eq!(fake.calls(Method::POST), 7);
    let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
    let said: Vec<&str> = text.lines().collect();
    assert_eq!(said.len(), 4, "{text}");
    assert!(said[0].contains("WARN") && said[0].contains("503"), "{text}");
    assert!(said[1].contains("WARN") && said[1].contains("401"), "{text}");
    assert!(said[2].contains("registered") && said[3].contains("the registry is back"), "{text}");
}

#[tokio::test]
async fn what_comes_without_the_key_is_refused_before_it_is_read() {
    let fake = Fake::default();
    fake.reply(200, Some("1.5"), r#"{"log":[]}"#);
    let member = member(&fake.serve().await, quick()).await;
    eventually("joined", || *member.member.joined().borrow()).await;
    for method in ["POST", "DELETE", "PUT"] {
        let addr = member.url.strip_prefix("http://").unwrap();
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let head =
            format!("{method} {SERVICES_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n{{");
        tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        let read = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer);
        tokio::time::timeout(Duration::from_secs(10), read)
            .await
            .expect("an answer, though most is unsent")
            .unwrap();
        assert_eq!(&answer, b"HTTP/1.1 401", "{method}");
    }
}

#[tokio::test]
async fn an_event_is_one_instance_and_a_snapshot_may_be_many() {
    let fake = Fake::default();
    fake.reply(200, Some("1.5"), r#"{"log":[]}"#);
    let member = member(&fake.serve().await, quick()).await;
    eventually("joined", || *member.member.joined().borrow()).await;
    let key = format!("Bearer {}", fake.last().push_key.unwrap());
    let authorized = [("authorization", key.as_str())];
    let long = format!("{LOG_B}{}", " ".repeat(64 << 10));
    assert_eq!(member.push(Method::POST, &authorized, &long).await, 413);
    assert_eq!(member.push(Method::DELETE, &authorized, &long).await, 413);
    let snapshot = format!(r#"{{"Revision":"1.6","Services":{{"log":[{LOG_A}]}}{}}}"#, " ".repeat(3 << 20));
    assert_eq!(member.push(Method::PUT, &authorized, &snapshot).await, 200);
    assert_eq!(member.logs(), ["127.0.0.1:1"]);
}

#[tokio::test]
async fn deregistering_names_the_start_and_ends_the_membership() {
    let fake = Fake::default();
    fake.reply(200, Some("1.1"), "{}");
    let member = member(&fake.serve().await, quick()).await;
    eventually("joined", || *member.member.joined().borrow()).await;
    member.member.deregister().await.unwrap();
    assert_eq!(fake.calls(Method::DELETE), 1);
    assert_eq!(fake.last().id.as_deref(), Some("visit-1"));
    assert!(!*member.member.joined().borrow());
}

#[test]
fn a_member_that_could_never_register_is_refused() {
    let config = MemberConfig {
        registry: "http://127.0.0.1:1".to_owned(),
        token: None,
        info: ServiceInfo::new("visit", ""),
        advertise: Advertise { addr: Reach::Local(80), control_addr: None },
        timing: Timing::default(),
    };
    let new = |config: &MemberConfig| Member::new(config.clone(), LoadCounters::default()).map(drop);
    assert!(new(&config).is_ok());
    for registry in ["", "registry:20000", "https://registry", "ftp://x"] {
        let error = new(&MemberConfig { registry: registry.to_owned(), ..config.clone() }).unwrap_err();
        assert!(error.to_string().contains("is no registry URL"), "{registry}: {error}");
    }
    let wrong = MemberConfig { info: ServiceInfo::new("Visit", ""), ..config.clone() };
    assert!(new(&wrong).unwrap_err().to_string().starts_with("Name: "));
    let wrong = MemberConfig { advertise: Advertise::at("nowhere"), ..config };
    assert!(new(&wrong).unwrap_err().to_string().starts_with("Addr: "));
}
