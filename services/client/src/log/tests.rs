//! The senders against log instances that misbehave.

use std::collections::BTreeSet;
use std::sync::Mutex;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap as Headers;
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use hubspoke_protocol::ServiceLists;

/// What an instance got: the type, the key and the body of each request.
type Requests = Arc<Mutex<Vec<(String, Option<String>, String)>>>;

#[derive(Clone, Default)]
struct Fake {
    requests: Requests,
    /// What to answer before answering 200.
    answers: Arc<Mutex<Vec<u16>>>,
    slow: Duration,
    /// Refuses batches of more than one entry, as a whole.
    no_batches: bool,
    /// Names the first failed entry only, of those whose text is "bad".
    checks: bool,
}

async fn answer(State(fake): State<Fake>, headers: Headers, body: Bytes) -> (StatusCode, String) {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let body = String::from_utf8(body.to_vec()).unwrap();
    tokio::time::sleep(fake.slow).await;
    fake.requests.lock().unwrap().push((
        text("content-type").unwrap(),
        text("idempotency-key"),
        body.clone(),
    ));
    let lines: Vec<&str> = body.lines().collect();
    let mut status = fake.answers.lock().unwrap().pop().unwrap_or(200);
    if fake.no_batches && lines.len() > 1 {
        status = 413;
    }
    let failed: Vec<usize> =
        (1..).zip(&lines).filter(|(_, line)| line.contains("\"bad\"")).map(|(n, _)| n).collect();
    let mut reply = "{}".to_owned();
    if fake.checks
        && let Some(line) = failed.first()
    {
        status = if failed.len() == lines.len() { 400 } else { 200 };
        reply = format!(r#"{{"failed":[{{"line":{line},"status":422}}],"failed_count":{}}}"#, failed.len());
    }
    (StatusCode::from_u16(status).unwrap(), reply)
}

impl Fake {
    async fn start(&self, batches: bool) -> ServiceInfo {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut info = ServiceInfo::new(LOG_SERVICE, listener.local_addr().unwrap().to_string());
        if batches {
            info.meta.insert(BATCH_META.0.to_owned(), BATCH_META.1.to_owned());
        }
        let app = Router::new().route("/log", post(answer)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        info
    }

    fn requests(&self) -> Vec<(String, Option<String>, String)> {
        self.requests.lock().unwrap().clone()
    }

    /// The texts of all entries, whatever way they came.
    fn texts(&self) -> Vec<String> {
        let mut texts = Vec::new();
        for (kind, _, body) in self.requests() {
            if kind == "application/x-ndjson" {
                let line =
                    |line| serde_json::from_str::<Value>(line).unwrap()["msg"].as_str().unwrap().to_owned();
                texts.extend(body.lines().map(line));
            } else {
                texts.push(body);
            }
        }
        texts
    }
}

fn client(instances: Vec<ServiceInfo>) -> LogClient {
    let directory = Directory::default();
    directory.registered(ServiceLists([(LOG_SERVICE.to_owned(), instances)].into()), None);
    LogClient::new(directory, &ServiceInfo::new("visit", "127.0.0.1:1")).unwrap()
}

async fn send_many(client: &LogClient, count: usize) -> Vec<Result<String, LogError>> {
    let mut senders = tokio::task::JoinSet::new();
    for n in 0..count {
        let client = client.clone();
        senders.spawn(async move { client.send(n.to_string()).await });
    }
    senders.join_all().await
}

fn numbers(count: usize) -> BTreeSet<String> {
    (0..count).map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn under_load_entries_share_requests_and_each_arrives_once() {
    let fake = Fake { slow: Duration::from_millis(5), ..Fake::default() };
    let client = client(vec![fake.start(true).await]);
    assert!(send_many(&client, 500).await.iter().all(Result::is_ok));
    let texts = fake.texts();
    assert_eq!(texts.len(), 500);
    assert_eq!(texts.into_iter().collect::<BTreeSet<_>>(), numbers(500));
    assert!(fake.requests().len() < 100, "{} requests", fake.requests().len());
}

#[tokio::test]
async fn an_instance_that_does_not_say_that_it_takes_batches_gets_texts() {
    let fake = Fake::default();
    let client = client(vec![fake.start(false).await]);
    assert!(send_many(&client, 50).await.iter().all(Result::is_ok));
    assert_eq!(fake.texts().into_iter().collect::<BTreeSet<_>>(), numbers(50));
    assert!(fake.requests().iter().all(|(kind, key, _)| kind.starts_with("text/plain") && key.is_some()));
}

#[tokio::test]
async fn what_one_instance_does_not_take_goes_to_another_under_the_same_key() {
    let broken = Fake { answers: Arc::new(Mutex::new(vec![503; 1_000])), ..Fake::default() };
    let good = Fake::default();
    let client = client(vec![broken.start(true).await, good.start(true).await]);
    for n in 0..20 {
        client.send(n.to_string()).await.unwrap();
    }
    assert_eq!(good.texts().into_iter().collect::<BTreeSet<_>>(), numbers(20));
    let keys =
        |fake: &Fake| fake.requests().into_iter().map(|(_, key, text)| (text, key)).collect::<BTreeSet<_>>();
    assert!(!broken.requests().is_empty());
    assert!(keys(&broken).is_subset(&keys(&good)));
}

#[tokio::test]
async fn a_refused_batch_is_sent_one_by_one_and_only_the_guilty_fail() {
    // The requests are slow enough for others to gather behind them.
    let fake = Fake { slow: Duration::from_millis(20), no_batches: true, ..Fake::default() };
    let client = client(vec![fake.start(true).await]);
    assert!(send_many(&client, 10).await.iter().all(Result::is_ok));
    let requests = fake.requests();
    let (batches, alone): (Vec<_>, Vec<_>) = requests
        .into_iter()
        .partition(|(kind, _, body)| kind.ends_with("ndjson") && body.lines().count() > 1);
    assert!(!batches.is_empty());
    let keys: BTreeSet<_> = alone.iter().map(|(_, key, _)| key.clone().unwrap()).collect();
    assert_eq!((alone.len(), keys.len()), (10, 10), "each under its own key");
    fake.answers.lock().unwrap().push(400);
    assert!(matches!(client.send("x").await, Err(LogError::Refused(StatusCode::BAD_REQUEST))));
}

#[tokio::test]
async fn entries_behind_the_last_failure_that_is_named_are_not_taken_for_stored() {
    let fake = Fake { checks: true, ..Fake::default() };
    let queue = LogQueue::start(client(vec![fake.start(true).await]), 1 << 20);
    for text in ["a", "bad", "b", "bad", "c"] {
        queue.push(text).unwrap();
    }
    assert_eq!(queue.flush(Duration::from_secs(20)).await, 0);
    assert_eq!(queue.lost(), 2);
    assert_eq!(fake.texts(), ["a", "bad", "b", "bad", "c", "b", "bad", "c"]);
}

#[tokio::test]
async fn large_entries_go_in_requests_that_a_log_instance_takes() {
    let fake = Fake::default();
    let queue = LogQueue::start(client(vec![fake.start(true).await]), 64 << 20);
    for n in 0..300 {
        let fields = serde_json::json!({"n": n, "list": ["y".repeat(10_000)]});
        let fields = fields.as_object().unwrap().clone();
        queue.push(Entry { text: "x".repeat(10_000), level: Some("warn"), fields }).unwrap();
    }
    queue.push("z".repeat(3 << 19)).unwrap();
    assert_eq!(queue.flush(Duration::from_secs(20)).await, 0);
    let bodies: Vec<String> = fake.requests().into_iter().map(|(_, _, body)| body).collect();
    assert_eq!(bodies.iter().map(|body| body.lines().count()).sum::<usize>(), 301);
    assert!(
        bodies.iter().filter(|body| body.len() > lane::TOGETHER_BYTES).count() <= 1,
        "only the one alone"
    );
    assert!(bodies.len() < 20);
}

#[tokio::test]
async fn what_is_sent_one_by_one_keeps_all_it_says() {
    let fake = Fake { no_batches: true, ..Fake::default() };
    let queue = LogQueue::start(client(vec![fake.start(true).await]), 1 << 20);
    for text in ["a", "b"] {
        let fields = serde_json::json!({"n": 1}).as_object().unwrap().clone();
        queue.push(Entry { text: text.to_owned(), level: Some("warn"), fields }).unwrap();
    }
    assert_eq!(queue.flush(Duration::from_secs(20)).await, 0);
    let requests = fake.requests();
    let [_, one, two] = &requests[..] else { panic!("{requests:?}") };
    for ((_, _, line), text) in [one, two].into_iter().zip(["a", "b"]) {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert_eq!(entry, serde_json::json!({"msg": text, "level": "warn", "fields": {"n": 1}}));
    }
    assert!(one.1.is_some() && two.1.is_some() && one.1 != two.1, "each under its own key");
}

#[tokio::test]
async fn one_instance_that_lives_is_found_among_many_that_do_not() {
    let fake = Fake::default();
    let mut instances = vec![fake.start(true).await];
    // Held, so that nobody else gets them, and never listened on.
    let held: Vec<_> = (0..4)
        .map(|_| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            socket
        })
        .collect();
    for socket in &held {
        instances.push(ServiceInfo::new(LOG_SERVICE, socket.local_addr().unwrap().to_string()));
    }
    let client = client(instances);
    for n in 0..50 {
        client.send(n.to_string()).await.unwrap();
    }
    assert_eq!(fake.texts().len(), 50);
}

#[tokio::test]
async fn without_any_instance_the_sender_is_told() {
    let fake = Fake { answers: Arc::new(Mutex::new(vec![507; 9])), ..Fake::default() };
    let client = client(vec![fake.start(true).await]);
    assert!(matches!(client.send("x").await, Err(LogError::NoInstance { attempts: 1, last: Some(_) })));
}

#[tokio::test]
async fn a_queue_delivers_in_order_and_flushes() {
    let broken = Fake { answers: Arc::new(Mutex::new(vec![503; 3])), ..Fake::default() };
    let queue = LogQueue::start(client(vec![broken.start(true).await]), 1 << 20);
    for n in 0..1_200 {
        queue.push(n.to_string()).unwrap();
    }
    assert_eq!(queue.flush(Duration::from_secs(20)).await, 0);
    let mut texts = broken.texts();
    let given_up = texts.len() - 1_200; // what the first answers refused
    texts.drain(..given_up);
    assert_eq!(texts, (0..1_200).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(queue.lost(), 0);
    assert!(broken.requests().len() < 12);
}

#[tokio::test]
async fn a_full_queue_refuses_and_reports_the_loss_later() {
    let fake = Fake { slow: Duration::from_millis(50), ..Fake::default() };
    let queue = LogQueue::start(client(vec![fake.start(true).await]), 10_000);
    let refused = (0..200).filter(|n| queue.push(n.to_string()) == Err(QueueFull)).count();
    assert!(refused > 0);
    assert_eq!(queue.flush(Duration::from_secs(20)).await, 0);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fake.texts().contains(&format!("{refused} log entries were lost")) {
        assert!(Instant::now() < deadline, "{:?}", fake.texts());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_services_own_events_become_entries_and_those_of_the_sending_do_not() {
    let fake = Fake::default();
    let queue = LogQueue::start(client(vec![fake.start(true).await]), 1 << 20);
    let subscriber = tracing_subscriber::registry().with(LogLayer::new(queue.pusher()));
    tracing::subscriber::with_default(subscriber, || {
        tracing::warn!(target: "shop", user = 7, name = "ada", "it is \"hot\"");
        tracing::info!(target: "hyper::client", "not this");
        tracing::info!(target: "hubspoke_client::log::lanes", "nor this");
    });
    assert_eq!(queue.flush(Duration::from_secs(20)).await, 0);
    let requests = fake.requests();
    let [(_, _, line)] = &requests[..] else { panic!("{requests:?}") };
    let entry: Value = serde_json::from_str(line).unwrap();
    let fields = serde_json::json!({"user": 7, "name": "ada", "target": "shop"});
    assert_eq!(entry, serde_json::json!({"msg": "it is \"hot\"", "level": "warn", "fields": fields}));
}
