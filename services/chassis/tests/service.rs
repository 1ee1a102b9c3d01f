//! A service from bind to exit, against a registry that only says yes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should say where"
)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::{any, get};
use hubspoke_chassis::config::{Common, Process};
use hubspoke_chassis::{RunError, Service};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const PROCESS: Process = Process::new("test", "0");

/// What the registry was asked, in order: `POST`, `DELETE`.
type Calls = Arc<Mutex<Vec<String>>>;

async fn registry() -> (String, Calls) {
    let calls = Calls::default();
    let seen = calls.clone();
    let app = Router::new().route(
        "/services",
        any(move |method: axum::http::Method| {
            seen.lock().unwrap().push(method.to_string());
            async { ([("hub-revision", "1.1")], "{}") }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, calls)
}

struct Running {
    addr: SocketAddr,
    control: SocketAddr,
    stop: oneshot::Sender<()>,
    run: JoinHandle<Result<(), RunError>>,
}

async fn start(common: &Common, routes: Router) -> Running {
    let service = Service::builder(PROCESS).bind(common).await.unwrap();
    let (addr, control) = (service.local_addr(), service.control_addr());
    let (stop, stopped) = oneshot::channel();
    let run = tokio::spawn(service.run(routes, async { drop(stopped.await) }));
    Running { addr, control, stop, run }
}

async fn common() -> (Common, Calls) {
    let (url, calls) = registry().await;
    let mut common = Common::of(&PROCESS).unwrap();
    common.registry.url = url;
    (common, calls)
}

async fn status(addr: SocketAddr, path: &str) -> u16 {
    reqwest::get(format!("http://{addr}{path}")).await.unwrap().status().as_u16()
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_request_in_flight_is_finished_after_the_service_has_left_the_catalogue() {
    let (common, calls) = common().await;
    let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (enter, left) = (entered.clone(), leave.clone());
    let slow = get(async move || {
        enter.notify_one();
        left.notified().await;
        "done"
    });
    let running = start(&common, Router::new().route("/slow", slow)).await;
    eventually("ready", || async { status(running.addr, "/readyz").await == 200 }).await;
    let in_flight = tokio::spawn(reqwest::get(format!("http://{}/slow", running.addr)));
    entered.notified().await;
    let beat = reqwest::get(format!("http://{}/heart-beat", running.addr)).await.unwrap();
    assert_eq!(beat.text().await.unwrap(), r#"{"Status":"serving","Requests":1,"InFlight":1}"#);
    running.stop.send(()).unwrap();
    eventually("no new connections", || async {
        tokio::net::TcpStream::connect(running.addr).await.is_err()
    })
    .await;
    assert_eq!(*calls.lock().unwrap(), ["POST", "DELETE"], "it left before it stopped to serve");
    leave.notify_one();
    assert_eq!(in_flight.await.unwrap().unwrap().text().await.unwrap(), "done");
    running.run.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_grace_bounds_what_is_in_flight() {
    let (mut common, _) = common().await;
    common.shutdown_grace = Duration::from_millis(50);
    let entered = Arc::new(Notify::new());
    let enter = entered.clone();
    let stuck = get(async move || {
        enter.notify_one();
        std::future::pending::<()>().await
    });
    let running = start(&common, Router::new().route("/stuck", stuck)).await;
    let cut_off = tokio::spawn(reqwest::get(format!("http://{}/stuck", running.addr)));
    entered.notified().await;
    running.stop.send(()).unwrap();
    running.run.await.unwrap().unwrap();
    assert!(cut_off.await.unwrap().is_err());
}

#[tokio::test]
async fn control_routes_have_a_port_of_their_own_where_one_is_set() {
    let (mut common, _) = common().await;
    common.control_listen = Some("127.0.0.1:0".parse().unwrap());
    let running = start(&common, Router::new().route("/mine", get(|| async { "mine" }))).await;
    for (path, public, control) in
        [("/mine", 200, 404), ("/livez", 404, 200), ("/metrics", 404, 200), ("/heart-beat", 404, 200)]
    {
        assert_eq!(
            (status(running.addr, path).await, status(running.control, path).await),
            (public, control),
            "{path}"
        );
    }
}

#[tokio::test]
async fn every_reply_says_who_served_it_and_a_panic_is_one_reply_only() {
    let (common, _) = common().await;
    async fn panics() -> &'static str {
        panic!("secret cause")
    }
    let routes = Router::new().route("/panic", get(panics));
    let running = start(&common, routes).await;
    let mut names = std::collections::BTreeSet::new();
    for (path, expected) in [("/panic", 500), ("/nothing", 404), ("/livez", 200)] {
        let reply = reqwest::get(format!("http://{}{path}", running.addr)).await.unwrap();
        assert_eq!(reply.status(), expected, "{path}");
        names.insert(reply.headers()["hub-instance"].to_str().unwrap().to_owned());
        assert!(!reply.text().await.unwrap().contains("secret"), "the cause stays inside");
    }
    assert_eq!(names.len(), 1);
    assert!(names.pop_first().unwrap().starts_with("test-"));
}

#[tokio::test]
async fn what_is_served_is_counted_once_and_what_is_not_is_no_series() {
    let (common, _) = common().await;
    async fn panics() -> &'static str {
        panic!("a bug")
    }
    let routes = Router::new().route("/mine/{id}", get(|| async { "mine" })).route("/panic", get(panics));
    let running = start(&common, routes).await;
    for path in ["/mine/1", "/mine/2", "/panic", "/nothing", "/livez"] {
        status(running.addr, path).await;
    }
    let post = reqwest::Client::new().post(format!("http://{}/mine/1", running.addr)).send().await.unwrap();
    assert_eq!((post.status().as_u16(), &post.headers()["allow"]), (405, &"GET,HEAD".parse().unwrap()));
    assert_eq!(post.headers()["content-type"], "application/problem+json");
    let beat = reqwest::get(format!("http://{}/heart-beat", running.addr)).await.unwrap();
    // Of the service's own routes, not those of the platform.
    assert_eq!(beat.text().await.unwrap(), r#"{"Status":"serving","Requests":4,"InFlight":0}"#);
    let shown = reqwest::get(format!("http://{}/metrics", running.addr)).await.unwrap().text().await.unwrap();
    let count = |method: &str, status: u16, route: &str| {
        let labels = [
            format!("http_request_method=\"{method}\""),
            format!("http_response_status_code=\"{status}\""),
            format!("http_route=\"{route}\""),
        ];
        let mut lines =
            shown.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count"));
        let line = lines.find(|line| labels.iter().all(|label| line.contains(label)));
        line.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
    };
    assert_eq!(count("GET", 200, "/mine/{id}"), Some(2), "{shown}");
    assert_eq!(count("POST", 405, "/mine/{id}"), Some(1), "{shown}");
    assert_eq!(count("GET", 500, "/panic"), Some(1), "{shown}");
    assert_eq!(count("GET", 200, "/livez"), Some(1), "{shown}");
    assert!(!shown.contains("nothing") && !shown.contains("/mine/1"), "{shown}");
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_not_waited_for() {
    let (common, _) = common().await;
    let routes = Router::new().route("/ignores", axum::routing::post(|| async { "whatever" }));
    let running = start(&common, routes).await;
    let mut stream = tokio::net::TcpStream::connect(running.addr).await.unwrap();
    let head = "POST /ignores HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome";
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let read = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer);
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("an answer").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_port_in_use_is_said_with_the_key_that_sets_it() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut common, _) = common().await;
    common.listen = taken.local_addr().unwrap();
    let error = Service::builder(PROCESS).bind(&common).await.err().unwrap();
    assert_eq!(error.to_string(), format!("can't listen on {} (listen)", common.listen));
}

#[tokio::test]
async fn a_wildcard_is_advertised_as_the_address_towards_the_registry() {
    let (mut common, _) = common().await;
    common.listen = "0.0.0.0:0".parse().unwrap();
    let service = Service::builder(PROCESS).bind(&common).await.unwrap();
    let port = service.local_addr().port();
    let seen: Arc<Mutex<Option<String>>> = Arc::default();
    let app_seen = seen.clone();
    let app = Router::new().route(
        "/services",
        any(move |body: String| {
            let info: serde_json::Value = serde_json::from_str(&body).unwrap();
            *app_seen.lock().unwrap() = info["Addr"].as_str().map(str::to_owned);
            async { "{}" }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    common.registry.url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    drop(service);
    let mut again = common.clone();
    again.listen.set_port(port);
    let running = start(&again, Router::new()).await;
    eventually("registered", || async { seen.lock().unwrap().is_some() }).await;
    assert_eq!(seen.lock().unwrap().as_deref(), Some(format!("127.0.0.1:{port}").as_str()));
    running.stop.send(()).unwrap();
    running.run.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_caller_that_sends_too_much_still_reads_why_it_is_refused() {
    let (common, _) = common().await;
    let routes = Router::new()
        .route("/small", axum::routing::post(|body: String| async { body }))
        .layer(axum::extract::DefaultBodyLimit::max(16));
    let running = start(&common, routes).await;
    let http = reqwest::Client::new();
    for _ in 0..20 {
        let request = http.post(format!("http://{}/small", running.addr)).body("x".repeat(8 << 20));
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), 413);
        assert_eq!(reply.headers()["content-type"], "application/problem+json");
    }
}
