//! The access log.

use std::collections::BTreeMap;
use std::sync::{Mutex, Once};

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, span};

use super::support::*;

/// The fields of each entry.
static ENTRIES: Mutex<Vec<BTreeMap<&'static str, String>>> = Mutex::new(Vec::new());

/// Collects the access log alone.
struct AccessLog;

impl tracing::Subscriber for AccessLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "access"
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Fields::default();
        event.record(&mut line);
        ENTRIES.lock().unwrap().push(line.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

async fn entry_of(path: &str) -> BTreeMap<&'static str, String> {
    entry_where(|line| line.get("path").is_some_and(|value| value == path)).await
}

/// Has the access log collected, once for all tests.
fn collect() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(AccessLog).unwrap());
}

/// The first entry for which `wanted` holds.
async fn entry_where(
    wanted: impl Fn(&BTreeMap<&'static str, String>) -> bool,
) -> BTreeMap<&'static str, String> {
    let find = || ENTRIES.lock().unwrap().iter().find(|line| wanted(line)).cloned();
    eventually("the entry is written", async || find().is_some()).await;
    find().unwrap()
}

#[tokio::test]
async fn a_request_has_one_entry_in_the_access_log() {
    collect();
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::start(|config| config.access_log = 1.0).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    gateway.request("POST", "/svc/access?q=secret").body("four").send().await.unwrap().text().await.unwrap();
    let line = entry_of("/svc/access").await;
    for (name, value) in [
        ("client", "127.0.0.1"),
        ("method", "POST"),
        ("service", "svc"),
        ("status", "200"),
        ("attempts", "1"),
        ("bytes_in", "4"),
        ("bytes_out", "5"),
        ("complete", "true"),
    ] {
        assert_eq!(line[name], value, "{line:?}");
    }
    assert!(line["instance"].starts_with("svc-") && !line.contains_key("cause"), "{line:?}");
    // The client sent no trace: it is the one that the instance got.
    assert_eq!(Some(line["traceparent"].clone()), header(&instance.requests()[0], "traceparent"));
    let ms = |name: &str| line[name].parse::<f64>().unwrap();
    assert!(ms("first_byte_ms") > 0.0 && ms("first_byte_ms") <= ms("duration_ms"), "{line:?}");

    gateway.get("/nowhere/access").await;
    let line = entry_of("/nowhere/access").await;
    assert_eq!((&*line["status"], &*line["cause"], &*line["attempts"]), ("404", "no-such-service", "0"));
    assert!(!line.contains_key("service") && !line.contains_key("instance"), "{line:?}");
    let entries = ENTRIES.lock().unwrap();
    assert_eq!(
        entries.iter().filter(|line| line.get("path").is_some_and(|path| path == "/svc/access")).count(),
        1
    );
}

#[tokio::test]
async fn behind_trusted_proxies_the_client_is_the_caller() {
    collect();
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::start(|config| {
        config.access_log = 1.0;
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    })
    .await;
    gateway.set("svc", &[instance.info("svc")]).await;
    for (n, field, value, client) in [
        (1, "x-forwarded-for", "203.0.113.7", "203.0.113.7"),
        (2, "x-forwarded-for", "6.6.6.6, 203.0.113.7:4711, 10.0.0.2", "203.0.113.7"),
        (3, "x-forwarded-for", "[2001:db8::1]:443", "2001:db8::1"),
        (4, "x-forwarded-for", "203.0.113.7, nonsense", "127.0.0.1"),
        (5, "forwarded", "for=\"[2001:db8::2]:80\";proto=https", "2001:db8::2"),
    ] {
        let path = format!("/svc/caller{n}");
        gateway.request("GET", &path).header(field, value).send().await.unwrap();
        assert_eq!(entry_of(&path).await["client"], client, "{value}");
        // Refused before a service was matched.
        let path = format!("/nowhere/caller{n}");
        gateway.request("GET", &path).header(field, value).send().await.unwrap();
        assert_eq!(entry_of(&path).await["client"], client, "{value}");
    }
}

#[tokio::test]
async fn a_request_that_is_refused_unread_has_an_entry() {
    collect();
    let instance = FakeInstance::script(|mut raw, _| async move { drop(raw.read_to_end().await) }).await;
    let gateway = Gateway::start(|config| {
        config.access_log = 1.0;
        config.timeouts.request_header = std::time::Duration::from_millis(300);
        config.limits.client_connections = 1;
    })
    .await;
    gateway.set("svc", &[instance.info("svc")]).await;
    let from = async |n: u8, bytes: &[u8]| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("127.0.4.{n}:0").parse().unwrap()).unwrap();
        let mut raw = RawConn { stream: socket.connect(gateway.addr).await.unwrap() };
        raw.write(bytes).await;
        raw
    };
    let entry = async |n: u8| entry_where(|line| line["client"] == format!("127.0.4.{n}")).await;
    let unfinished = b"POST /svc/unfinished HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc";
    for (n, bytes, status, cause) in [
        (1, &b"GET /svc HTTP/1.1\r\nbad header\r\n\r\n"[..], Some("400"), "bad-framing"),
        (2, b"GET /svc HTTP/1.1\r\nHost:", Some("408"), "request-timeout"),
        (3, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], Some("400"), "bad-framing"),
        (4, b"GET /svc HTTP/3.7\r\n\r\n", Some("505"), "http-version"),
        (5, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x01\x04\0\0\0\0\0x", None, "bad-framing"),
    ] {
        let response = from(n, bytes).await.read_to_end().await;
        let line = entry(n).await;
        assert_eq!((line.get("status").map(String::as_str), &*line["cause"]), (status, cause), "{line:?}");
        if let Some(expected) = status {
            assert!(response.starts_with(&format!("HTTP/1.1 {expected} ")), "{response}");
        }
    }
    assert!(entry(3).await["detail"].contains("without TLS"));
    drop(from(6, b"GET /svc HTTP/1.1\r\nHo").await);
    assert_eq!(entry(6).await["cause"], "client-closed");
    let body = from(7, unfinished).await;
    eventually("the request is in flight", async || gateway.metric("in_flight", &["svc"]).await == 1).await;
    drop(body);
    let line = entry_of("/svc/unfinished").await;
    assert!(line.contains_key("cause") && line["complete"] == "false", "{line:?}");
    let held = from(8, b"").await;
    let second = from(8, b"").await.read_to_end().await;
    assert!(second.starts_with("HTTP/1.1 503 "), "{second}");
    let line = entry_where(|line| line["client"] == "127.0.4.8" && line.contains_key("status")).await;
    assert_eq!((&*line["status"], &*line["cause"]), ("503", "too-many-connections"));
    drop(held);
}
