//! Members that have several registries.

use std::future::pending;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use hubspoke_client::directory::View;
use hubspoke_client::membership::{MemberConfig, Timing};
use hubspoke_client::{LoadCounters, Member};
use hubspoke_protocol::{HEART_BEAT_PATH, HUB_REVISION, ServiceInfo};
use hubspoke_testkit::{ClosedPort, FakeRegistry, RawConn, TestServer, eventually};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::task::AbortOnDropHandle;

const LOG_A: &str = r#"{"Name":"log","Addr":"127.0.0.1:1"}"#;
const LOG_B: &str = r#"{"Name":"log","Addr":"127.0.0.1:2"}"#;

/// A member that serves and runs.
struct Running {
    member: Member,
    server: TestServer,
    _run: AbortOnDropHandle<()>,
}

impl Running {
    async fn start(registries: &[String], timing: Timing) -> Self {
        let info = ServiceInfo {
            required_services: vec!["log".to_owned()],
            id: Some("visit-1".to_owned()),
            ..ServiceInfo::new("visit", "127.0.0.1:9")
        };
        let mut config = MemberConfig::new(registries.join(","), info);
        config.timing = timing;
        let member = Member::new(config, LoadCounters::default()).unwrap();
        let server = TestServer::start(member.routes()).await;
        let running = member.clone();
        let run = AbortOnDropHandle::new(tokio::spawn(async move { running.run(pending()).await }));
        Self { member, server, _run: run }
    }

    /// A heartbeat that shows that there is a newer revision.
    async fn heartbeat(&self, revision: &str) {
        let head = format!("GET {HEART_BEAT_PATH} HTTP/1.1\r\nHost: x\r\n{HUB_REVISION}: {revision}\r\n\r\n");
        let mut conn = RawConn::connect(self.server.addr).await;
        conn.write(head).await;
        assert!(conn.response().await.starts_with("HTTP/1.1 200"));
    }
}

fn logs(view: &View) -> Vec<String> {
    view.instances("log").unwrap_or_default().iter().map(|log| log.addr.clone()).collect()
}

/// Renews only when a heartbeat shows that it must, and retries at once.
fn quick() -> Timing {
    let mut timing = Timing::default();
    timing.renew = Duration::from_secs(60);
    timing.backoff = Duration::from_millis(1);
    timing.backoff_max = Duration::from_millis(5);
    timing
}

/// Renews all the time.
fn busy() -> Timing {
    let mut timing = quick();
    timing.renew = Duration::from_millis(1);
    timing
}

fn answer(registry: &FakeRegistry, revision: &str, logs: &[&str]) {
    registry.reply(200, Some(revision), &format!(r#"{{"log":[{}]}}"#, logs.join(",")));
}

/// An address at which nobody answers: its queue of connections is full.
async fn silent_addr() -> (String, impl Sized) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(conn)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(addr)).await
    {
        queued.push(conn);
    }
    (format!("http://{addr}"), (listener, queued))
}

#[tokio::test]
async fn a_registry_that_does_not_answer_costs_one_timeout_once() {
    let (silent, _kept) = silent_addr().await;
    let hung = TestServer::script(|_conn: RawConn| pending()).await;
    let closed = ClosedPort::new();
    let registry = FakeRegistry::start().await;
    for dead in [silent, hung.url(), closed.url()] {
        let before = registry.count(Method::POST);
        let mut timing = busy();
        timing.attempt = Duration::from_millis(900);
        let member = Running::start(&[dead, registry.url()], timing).await;
        // A second for each call would be longer than `eventually` waits.
        registry.registration(before + 40).await;
        assert!(*member.member.joined().borrow());
    }
}

#[tokio::test]
async fn a_member_that_changes_registry_keeps_its_epoch_and_misses_nothing() {
    let (one, two) = (FakeRegistry::start().await, FakeRegistry::start().await);
    for registry in [&one, &two] {
        answer(registry, "7.3", &[LOG_A, LOG_B]);
    }
    let member = Running::start(&[one.url(), two.url()], quick()).await;
    eventually("it has registered", async || *member.member.joined().borrow()).await;
    assert_eq!(one.calls().len() + two.calls().len(), 1, "with any of them");
    let (first, other) = if two.calls().is_empty() { (one, two) } else { (two, one) };
    // The other one is a little behind when the first one stops: what the member knows stays.
    answer(&other, "7.2", &[LOG_A]);
    answer(&other, "7.5", &[LOG_B]);
    let views = Arc::new(Mutex::new(Vec::new()));
    let seen = views.clone();
    member.member.directory().follow(Arc::new(move |view: &View| seen.lock().push(logs(view))));
    drop(first);
    for n in 1..=3 {
        member.heartbeat("7.9").await;
        other.registration(n).await;
    }
    eventually("it is up to date", async || views.lock().last().unwrap() == &["127.0.0.1:2"]).await;
    // In another epoch what it knew would be kept beside the new list.
    assert_eq!(*views.lock(), [vec!["127.0.0.1:1", "127.0.0.1:2"], vec!["127.0.0.1:2"]]);
    assert_eq!(member.member.directory().view().revision().unwrap().epoch, 7);
    member.member.deregister().await.unwrap();
    assert_eq!(other.count(Method::DELETE), 1);
}

#[tokio::test]
async fn one_that_cannot_do_its_work_is_passed_over_and_one_that_refuses_is_not() {
    let (failing, working) = (FakeRegistry::start().await, FakeRegistry::start().await);
    failing.reply(503, None, "etcd does not answer");
    let member = Running::start(&[failing.url(), working.url()], busy()).await;
    working.registration(20).await;
    assert!(failing.calls().len() <= 1, "not again while the other one answers");
    drop(member);

    let (refusing, other) = (FakeRegistry::start().await, FakeRegistry::start().await);
    for registry in [&refusing, &other] {
        registry.reply(422, None, "the name is reserved");
    }
    let member = Running::start(&[refusing.url(), other.url()], quick()).await;
    eventually("it is refused", async || refusing.calls().len() + other.calls().len() > 5).await;
    assert!(refusing.calls().is_empty() || other.calls().is_empty(), "one speaks for all");
    assert!(member.member.failing().borrow().is_some());
}

/// Set in the mount namespace in which `registries.test` has three addresses.
const IN_NAMESPACE: &str = "HUBSPOKE_TEST_IN_NAMESPACE";

/// Runs itself again in a mount namespace with an `/etc/hosts` of its own. Skipped if none can be made.
#[test]
fn each_address_of_a_name_is_a_registry() {
    if std::env::var_os(IN_NAMESPACE).is_some() {
        return tokio::runtime::Runtime::new().unwrap().block_on(ask_each_address());
    }
    let works = |options: &&[&str]| {
        Command::new("unshare").args(*options).arg("true").status().is_ok_and(|ran| ran.success())
    };
    let Some(options) = [&["--mount"][..], &["--map-root-user", "--mount"]].into_iter().find(works) else {
        #[allow(clippy::print_stderr, reason = "whoever runs the tests shall know")]
        {
            eprintln!("skipped: no mount namespace can be made");
        }
        return;
    };
    let hosts = tempfile::NamedTempFile::new().unwrap();
    let lines = [2, 3, 4].map(|n| format!("127.0.0.{n} registries.test\n"));
    std::fs::write(&hosts, "127.0.0.1 localhost\n".to_owned() + &lines.concat()).unwrap();
    let script = r#"mount --bind "$1" /etc/hosts && exec "$2" --exact registries::each_address_of_a_name_is_a_registry"#;
    let mut again = Command::new("unshare");
    again.args(options).args(["sh", "-c", script, "sh"]).arg(hosts.path());
    let ran = again.arg(std::env::current_exe().unwrap()).env(IN_NAMESPACE, "1").output().unwrap();
    assert!(
        ran.status.success(),
        "{}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
}

async fn ask_each_address() {
    // One that hangs, one that is closed, and one that answers.
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _hung = TestServer::script_on(listener, |_conn: RawConn| pending());
    let registry = FakeRegistry::at(&format!("127.0.0.4:{port}")).await;
    answer(&registry, "7.3", &[LOG_A, LOG_B]);
    let mut timing = busy();
    timing.attempt = Duration::from_millis(900);
    let member = Running::start(&[format!("http://registries.test:{port}")], timing).await;
    // A second for each call would be longer than `eventually` waits.
    registry.registration(40).await;
    // The closed one is back, and the other one goes away.
    let other = FakeRegistry::at(&format!("127.0.0.3:{port}")).await;
    answer(&other, "7.4", &[LOG_B]);
    assert!(other.calls().is_empty(), "the one that answered last is asked first");
    drop(registry);
    other.registration(40).await;
    assert_eq!(logs(&member.member.directory().view()), ["127.0.0.1:2"]);
    member.member.deregister().await.unwrap();
    assert_eq!(other.count(Method::DELETE), 1);
}
