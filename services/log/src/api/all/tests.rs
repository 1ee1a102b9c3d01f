//! Senders that nobody coordinates, honest and hostile, over several instances that restart: on real stores, without
//! servers.

use std::net::SocketAddr;
use std::path::Path;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use hubspoke_chassis::server::ConnectionHandle;
use hubspoke_client::Directory;
use proptest::prelude::*;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use super::*;
use crate::api::admission::QueryAdmission;
use crate::api::append;
use crate::api::body::BodyBudget;
use crate::ingest::IngestLimits;
use crate::query::SortOrder;
use crate::store::{Store, StoreOptions};

/// Each sends its entries one after another under the keys `1`, `2`, …, like all others, and each entry until it is
/// acknowledged. Texts are the same for all of them.
const HONEST: [HonestSender; 4] = [
    HonestSender { source: Some("visit/visit-1"), client: "10.0.0.1", batch: false },
    HonestSender { source: Some("visit/visit-2"), client: "10.0.0.1", batch: true },
    HonestSender { source: None, client: "10.0.0.1", batch: false },
    HonestSender { source: None, client: "10.0.0.2", batch: true },
];

#[derive(Clone, Copy)]
struct HonestSender {
    source: Option<&'static str>,
    client: &'static str,
    batch: bool,
}

/// A step of the test.
#[derive(Debug, Clone)]
enum Step {
    /// An honest sender sends its next entry, or that of its last step again if it has got no acknowledgement.
    Honest { sender: usize, to: usize, answered: bool },
    /// A stranger sends something under the key of any honest sender, past, present or future.
    Hostile { form: usize, key: usize, same_text: bool, to: usize },
    /// An instance stops and starts again.
    Restart { which: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..HONEST.len(), 0..2_usize, any::<bool>())
            .prop_map(|(sender, to, answered)| Step::Honest { sender, to, answered }),
        4 => (0..6_usize, 1..8_usize, any::<bool>(), 0..2_usize)
            .prop_map(|(form, key, same_text, to)| Step::Hostile { form, key, same_text, to }),
        1 => (0..2_usize).prop_map(|which| Step::Restart { which }),
    ]
}

fn app(dir: &Path, id: &str) -> Arc<LogApp> {
    let options = StoreOptions::new(dir.join("services.log"));
    let readers = Arc::new(Semaphore::new(64 << 20));
    Arc::new(LogApp {
        access: Arc::default(),
        anonymous_writes: false,
        store: Arc::new(Store::open(options, id).unwrap()),
        limits: IngestLimits { max_entry: 10_000, max_entries: 100, max_encoded: 100_000 },
        bodies: BodyBudget::new(1 << 20),
        max_batch: 20_000,
        name: "log".into(),
        id: id.into(),
        directory: Directory::default(),
        http: hubspoke_client::HttpClient::new(
            &[],
            None,
            hubspoke_client::HttpOptions::new(std::time::Duration::from_secs(1)),
        )
        .unwrap(),
        queries: QueryAdmission::new(8, Arc::clone(&readers)),
        readers,
        max_query_time: Duration::from_secs(30),
        parsers: Arc::new(Semaphore::new(2)),
        pattern_turns: Arc::new(Semaphore::new(1)),
        pattern_tails: Arc::new(Semaphore::new(1)),
        long_events: Arc::new(Semaphore::new(1 << 20)),
        max_stall: Duration::from_secs(90),
        closing: watch::channel(false).1,
    })
}

async fn post(
    app: &Arc<LogApp>,
    client: &str,
    headers: &[(&str, &str)],
    query: &str,
    body: Vec<u8>,
) -> StatusCode {
    let peer = SocketAddr::new(client.parse().unwrap(), 40_000);
    let mut request = Request::post(format!("/log?{query}"))
        .header("host", "localhost")
        .extension(ConnectionHandle::new(peer));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let reply = append::append(State(Arc::clone(app)), request.body(Body::from(body)).unwrap()).await;
    reply.into_response().status()
}

/// Posts the entry or batch with this number.
async fn post_honest(app: &Arc<LogApp>, sender: HonestSender, n: usize) -> StatusCode {
    let key = n.to_string();
    let mut headers = vec![("idempotency-key", key.as_str())];
    headers.extend(sender.source.map(|source| ("hub-source", source)));
    if sender.batch {
        headers.push(("content-type", "application/x-ndjson"));
        let lines = format!("{{\"msg\":\"{n}\",\"level\":\"info\"}}\n\"{n} again\"\n");
        return post(app, sender.client, &headers, "", lines.into_bytes()).await;
    }
    post(app, sender.client, &headers, "", n.to_string().into_bytes()).await
}

async fn post_hostile(app: &Arc<LogApp>, form: usize, key: usize, same_text: bool) {
    let text = if same_text { key.to_string() } else { format!("not {key}") };
    let key = key.to_string();
    let keyed = ("idempotency-key", key.as_str());
    let ndjson = ("content-type", "application/x-ndjson");
    let line = format!(
        "{{\"msg\":\"{text}\",\"level\":\"info\",\"source\":\"visit\",\"source_id\":\"visit-1\",\"client\":\"10.0.0.1\"}}\n"
    );
    let (stranger, member) = ("10.6.6.6", ("hub-source", "mallory/mallory-1"));
    // Nothing about the outcome is promised to a stranger.
    let _ = match form {
        0 => post(app, stranger, &[keyed], "source=visit", text.into_bytes()).await,
        1 => post(app, stranger, &[keyed, member], "", text.into_bytes()).await,
        2 => post(app, stranger, &[keyed, ndjson], "", line.into_bytes()).await,
        3 => {
            let own = format!("{{\"msg\":\"{text}\",\"key\":\"{key}\",\"source\":\"visit\"}}\n");
            post(app, stranger, &[ndjson], "", own.repeat(2).into_bytes()).await
        }
        4 => {
            let gzip = ("content-encoding", "gzip");
            let mut body = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut body, format!("{line}\"{key} again\"").as_bytes()).unwrap();
            post(app, stranger, &[keyed, ndjson, gzip], "", body.finish().unwrap()).await
        }
        // The gateway is not registered, so this is nobody's address.
        _ => {
            let forwarded = ("x-forwarded-for", "10.0.0.1");
            post(app, stranger, &[forwarded], &format!("key={key}"), text.into_bytes()).await
        }
    };
}

/// What `/log/all` returns.
async fn read_all(apps: &[Arc<LogApp>]) -> Vec<Value> {
    let mut streams = Vec::new();
    for app in apps {
        let (query, admitted) = admit(app, "order=asc&limit=0").await.unwrap();
        let files = query_files(app, admitted, query).begin().await.unwrap();
        streams.push(LineReader::new(LineSource::Files(files)));
    }
    let mut merge = TimeMerge::new(streams, SortOrder::Asc, None);
    let mut all = Vec::new();
    while let Some(line) = merge.next().await.unwrap() {
        all.push(serde_json::from_slice(&line).unwrap());
    }
    all
}

/// How many entries there are of a sender with this text.
fn count(all: &[Value], sender: HonestSender, text: &str) -> usize {
    let is_from = |entry: &&Value| match sender.source.and_then(|source| source.split_once('/')) {
        Some((name, id)) => entry["source"] == name && entry["source_id"] == id,
        None => entry["client"] == sender.client,
    };
    all.iter().filter(is_from).filter(|entry| entry["msg"] == text).count()
}

async fn check(steps: Vec<Step>) {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut apps = [app(dirs[0].path(), "log-1"), app(dirs[1].path(), "log-2")];
    let mut next = [1; HONEST.len()];
    for step in steps {
        match step {
            Step::Honest { sender, to, answered } => {
                let status = post_honest(&apps[to], HONEST[sender], next[sender]).await;
                assert_eq!(status, StatusCode::OK, "whatever the others sent before");
                next[sender] += usize::from(answered);
            }
            Step::Hostile { form, key, same_text, to } => post_hostile(&apps[to], form, key, same_text).await,
            Step::Restart { which } => {
                let id = if which == 0 { "log-1" } else { "log-2" };
                let other = apps[1 - which].clone();
                // The last handle is dropped first: it holds the lock of the file.
                apps = [other.clone(), other];
                let restarted = app(dirs[which].path(), id);
                apps[which] = restarted;
            }
        }
    }
    let all = read_all(&apps).await;
    for (sender, next) in HONEST.into_iter().zip(next) {
        for n in 1..next {
            assert_eq!(count(&all, sender, &n.to_string()), 1, "{n} in {all:#?}");
            assert_eq!(count(&all, sender, &format!("{n} again")), usize::from(sender.batch));
        }
        // What is not acknowledged may be stored, but it is not there twice.
        assert!(count(&all, sender, &next.to_string()) <= 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_acknowledged_entry_of_an_honest_sender_is_read_exactly_once(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(steps));
    }
}
