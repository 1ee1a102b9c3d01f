//! A service from bind to exit, with a fake registry.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use hubspoke_chassis::config::{Common, Process};
use hubspoke_chassis::{Json, Problem, ProblemType, RunError, Service};
use hubspoke_protocol::problem::PROBLEM_JSON;
use hubspoke_testkit::{FakeRegistry, RawConn, eventually};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

const PROCESS: Process = Process::new("test", "0");

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

/// The configuration of a member of a new registry.
async fn common() -> (Common, FakeRegistry) {
    let registry = FakeRegistry::start().await;
    let mut common = Common::of(&PROCESS).unwrap();
    common.registry.url = registry.url();
    (common, registry)
}

async fn status(addr: SocketAddr, path: &str) -> u16 {
    reqwest::get(format!("http://{addr}{path}")).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_request_in_flight_is_finished_after_deregistration() {
    let (common, registry) = common().await;
    let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (enter, left) = (entered.clone(), leave.clone());
    let slow = get(async move || {
        enter.notify_one();
        left.notified().await;
        "done"
    });
    let running = start(&common, Router::new().route("/slow", slow)).await;
    eventually("ready", async || status(running.addr, "/readyz").await == 200).await;
    let in_flight = tokio::spawn(reqwest::get(format!("http://{}/slow", running.addr)));
    entered.notified().await;
    let beat = reqwest::get(format!("http://{}/heart-beat", running.addr)).await.unwrap();
    assert_eq!(beat.text().await.unwrap(), r#"{"Status":"serving","Requests":1,"InFlight":1}"#);
    running.stop.send(()).unwrap();
    eventually("no new connections", async || TcpStream::connect(running.addr).await.is_err()).await;
    assert_eq!(registry.methods(), ["POST", "DELETE"], "deregistered before the drain");
    leave.notify_one();
    assert_eq!(in_flight.await.unwrap().unwrap().text().await.unwrap(), "done");
    running.run.await.unwrap().unwrap();
}

#[tokio::test]
async fn requests_in_flight_end_with_the_grace() {
    let (mut common, _registry) = common().await;
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
async fn control_listen_moves_the_control_routes() {
    let (mut common, _registry) = common().await;
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
async fn responses_name_the_instance_and_a_panic_fails_one_request() {
    let (common, _registry) = common().await;
    async fn panics() -> &'static str {
        panic!("secret cause")
    }
    let routes = Router::new().route("/panic", get(panics));
    let running = start(&common, routes).await;
    let mut ids = BTreeSet::new();
    for (path, expected) in [("/panic", 500), ("/nothing", 404), ("/livez", 200)] {
        let response = reqwest::get(format!("http://{}{path}", running.addr)).await.unwrap();
        assert_eq!(response.status(), expected, "{path}");
        ids.insert(response.headers()["hub-instance"].to_str().unwrap().to_owned());
        assert!(!response.text().await.unwrap().contains("secret"), "the cause is not sent");
    }
    assert_eq!(ids.len(), 1);
    assert!(ids.pop_first().unwrap().starts_with("test-"));
}

#[tokio::test]
async fn routed_requests_are_counted_once_and_others_make_no_series() {
    let (common, _registry) = common().await;
    async fn panics() -> &'static str {
        panic!("a bug")
    }
    let routes = Router::new().route("/mine/{id}", get(|| async { "mine" })).route("/panic", get(panics));
    let running = start(&common, routes).await;
    for path in ["/mine/1", "/mine/2", "/panic", "/nothing", "/livez"] {
        status(running.addr, path).await;
    }
    let posted = reqwest::Client::new().post(format!("http://{}/mine/1", running.addr)).send().await.unwrap();
    assert_eq!((posted.status().as_u16(), &posted.headers()["allow"]), (405, &"GET,HEAD".parse().unwrap()));
    assert_eq!(posted.headers()["content-type"], "application/problem+json");
    let beat = reqwest::get(format!("http://{}/heart-beat", running.addr)).await.unwrap();
    // The service's own routes count, the control routes do not.
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
async fn the_response_does_not_wait_for_an_unread_body() {
    let (common, _registry) = common().await;
    let routes = Router::new().route("/ignores", post(async || "response"));
    let running = start(&common, routes).await;
    let mut conn = RawConn::connect(running.addr).await;
    conn.write("POST /ignores HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nsome").await;
    assert!(conn.response().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_instance_id_is_the_name_and_16_digits() {
    let (common, _registry) = common().await;
    let bind = async || Service::builder(PROCESS).bind(&common).await.unwrap().id().to_owned();
    let id = bind().await;
    let digits = id.strip_prefix("test-").unwrap();
    assert!(digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    assert_ne!(id, bind().await);
}

#[tokio::test]
async fn a_port_in_use_is_reported_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut common, _registry) = common().await;
    common.listen = taken.local_addr().unwrap();
    let error = Service::builder(PROCESS).bind(&common).await.err().unwrap();
    let why = "the port is in use; is another test running? Stop it, or choose another port with HUB_LISTEN";
    assert_eq!(error.to_string(), format!("can't listen on {} (listen): {why}", common.listen));
}

#[tokio::test]
async fn a_wildcard_is_registered_as_the_address_towards_the_registry() {
    let (mut common, registry) = common().await;
    common.listen = "0.0.0.0:0".parse().unwrap();
    let running = start(&common, Router::new()).await;
    assert_eq!(registry.registration(1).await.addr, format!("127.0.0.1:{}", running.addr.port()));
    running.stop.send(()).unwrap();
    running.run.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_sends_too_much_still_reads_the_response() {
    let (common, _registry) = common().await;
    let routes =
        Router::new().route("/small", post(async |body: String| body)).layer(DefaultBodyLimit::max(16));
    let running = start(&common, routes).await;
    let http = reqwest::Client::new();
    for _ in 0..20 {
        let request = http.post(format!("http://{}/small", running.addr)).body("x".repeat(8 << 20));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
}

#[tokio::test]
async fn durations_are_counted_by_method_route_and_status() {
    let (common, _registry) = common().await;
    let running = start(&common, Router::new().route("/log", post(async || "stored"))).await;
    let http = reqwest::Client::new();
    for (method, expected) in [("POST", 200), ("POST", 200), ("BREW", 405)] {
        let request = http.request(method.parse().unwrap(), format!("http://{}/log", running.addr));
        assert_eq!(request.send().await.unwrap().status(), expected);
    }
    let shown = http.get(format!("http://{}/metrics", running.addr)).send().await.unwrap();
    let shown = shown.text().await.unwrap();
    for part in [
        r#"http_server_request_duration_seconds_count{http_request_method="POST",http_response_status_code="200",http_route="/log",otel_scope_name="hubspoke"} 2"#,
        r#"http_request_method="_OTHER""#,
        r#"service_name="test""#,
    ] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
}

#[tokio::test]
async fn invalid_json_and_a_wrong_shape_are_different_problems() {
    let (common, _registry) = common().await;
    let sum = async |Json(numbers): Json<Vec<u8>>| numbers.iter().sum::<u8>().to_string();
    let running = start(&common, Router::new().route("/sum", post(sum))).await;
    let http = reqwest::Client::new();
    for (body, status) in [
        (" [1, 2]\n", 200),
        ("", 400),
        ("[1", 400),
        ("[1] x", 400),
        ("\u{0}", 400),
        ("{}", 422),
        ("[\"x\"]", 422),
    ] {
        let request = http.post(format!("http://{}/sum", running.addr)).body(body);
        assert_eq!(request.send().await.unwrap().status(), status, "{body:?}");
    }
}

#[tokio::test]
async fn rejections_of_the_framework_are_problem_documents() {
    let (common, _registry) = common().await;
    let routes = Router::new()
        .route("/only-post", post(async |body: String| body))
        .route("/own", post(async || Problem::new(ProblemType::Loop, "no").with("cause", "test")))
        .layer(DefaultBodyLimit::max(8));
    let running = start(&common, routes).await;
    let http = reqwest::Client::new();
    let call = async |method: &str, path: &str, body: &'static str| {
        let request = http.request(method.parse().unwrap(), format!("http://{}{path}", running.addr));
        let response = request.body(body).send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default();
        (status, headers, body)
    };
    for (method, path, body, cause) in [
        ("POST", "/nowhere", "", ProblemType::NotFound),
        ("GET", "/only-post", "", ProblemType::MethodNotAllowed),
        ("POST", "/only-post", "more than eight", ProblemType::BodyTooLarge),
    ] {
        let (status, headers, problem) = call(method, path, body).await;
        assert_eq!(status, cause.status(), "{method} {path}");
        assert_eq!(headers["content-type"], PROBLEM_JSON, "{method} {path}");
        assert_eq!((&problem["status"], &problem["type"]), (&status.into(), &cause.urn().into()));
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        assert_eq!(headers.contains_key("allow"), status == 405);
    }
    // A handler's own problem and a success are left alone.
    let (_, _, problem) = call("POST", "/own", "").await;
    assert_eq!((&problem["detail"], &problem["cause"]), (&"no".into(), &"test".into()));
    assert_eq!((&problem["type"], &problem["status"]), (&ProblemType::Loop.urn().into(), &508.into()));
    let (status, headers, _) = call("POST", "/only-post", "short").await;
    assert_eq!(status, 200);
    assert_ne!(headers["content-type"], PROBLEM_JSON);
}
