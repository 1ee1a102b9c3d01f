//! `GET /log/all`: several log instances that know each other.

use std::collections::BTreeMap;

use hubspoke_protocol::ServiceInfo;
use hubspoke_testkit::{FakeRegistry, RawConn, TestServer};
use serde_json::Value;

use super::fixture::{Log, ndjson, texts};

async fn all(log: &Log, query: &str) -> (Vec<Value>, Option<String>) {
    let reply = log.get(&format!("/log/all?{query}")).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    let missing = reply.headers().get("hub-log-missing").map(|value| value.to_str().unwrap().to_owned());
    (ndjson(&reply.text().await.unwrap()), missing)
}

#[tokio::test]
async fn any_instance_shows_the_entries_of_all_merged_by_time() {
    let registry = FakeRegistry::core_only().await;
    registry.list_members();
    let mut logs = Vec::new();
    for n in 1..=3 {
        logs.push(Log::start_with(|config| config.common.registry.url = registry.url()).await);
        registry.registration(n).await;
    }
    for n in 0..12 {
        logs[n % 3].append(&n.to_string()).await;
    }
    // A retry of one entry that reached two instances.
    for log in &logs[..2] {
        let post = log.post("/log").header("Idempotency-Key", "k").body("12");
        assert_eq!(post.send().await.unwrap().status(), 200);
    }
    let ascending: Vec<String> = (0..13).map(|n| n.to_string()).collect();
    // The last one knows all the others from its registration.
    let (entries, missing) = all(&logs[2], "order=asc").await;
    assert_eq!((texts(&entries), missing), (ascending.iter().map(String::as_str).collect(), None));
    let (entries, _) = all(&logs[2], "limit=3").await;
    assert_eq!(texts(&entries), ["12", "11", "10"]);

    // Each instance continues after its own cursor.
    let (page, _) = all(&logs[2], "order=asc&limit=5").await;
    let mut last = BTreeMap::new();
    for entry in &page {
        last.insert(entry["instance"].as_str().unwrap().to_owned(), entry["seq"].as_u64().unwrap());
    }
    let cursor: Vec<String> = last.iter().map(|(instance, seq)| format!("{instance}:{seq}")).collect();
    let (rest, _) = all(&logs[2], &format!("order=asc&cursor={}", cursor.join(","))).await;
    assert_eq!(texts(&rest), ascending[5..].iter().map(String::as_str).collect::<Vec<_>>());

    // An instance that is gone but still registered is named.
    let gone = logs.remove(0);
    let addr = gone.url.strip_prefix("http://").unwrap().to_owned();
    drop(gone.stop().await);
    let (entries, missing) = all(logs.last().unwrap(), "order=asc").await;
    assert_eq!(missing, Some(addr));
    assert_eq!(entries.len(), 9);
    for log in logs {
        log.stop().await;
    }
}

#[tokio::test]
async fn a_stranger_that_registers_as_a_log_instance_spoils_no_reply() {
    let registry = FakeRegistry::core_only().await;
    registry.list_members();
    let redirects = TestServer::script(|mut conn: RawConn| async move {
        conn.request().await;
        let head = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/log\r\nContent-Length: 0\r\n\r\n";
        conn.write(head.to_owned()).await;
    });
    let endless = TestServer::script(|mut conn: RawConn| async move {
        conn.request().await;
        conn.write("HTTP/1.1 200 OK\r\nContent-Length: 300000000\r\n\r\n".to_owned()).await;
        loop {
            conn.write("x".repeat(1 << 20)).await;
        }
    });
    let (redirects, endless) = (redirects.await, endless.await);
    let strangers = [&redirects, &endless].map(|server| ServiceInfo::new("log", server.addr.to_string()));
    registry.set("log", &strangers);
    let log = Log::start_with(|config| config.common.registry.url = registry.url()).await;
    registry.registration(1).await;
    log.append("one").await;
    let (entries, missing) = all(&log, "").await;
    assert_eq!(texts(&entries), ["one"]);
    assert_eq!(missing, Some(redirects.addr.to_string()), "no redirect is followed");
    log.stop().await;
}
