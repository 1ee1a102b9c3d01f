//! The access log.

use std::collections::BTreeMap;
use std::sync::Mutex;

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
    let find = || ENTRIES.lock().unwrap().iter().find(|line| line["path"] == path).cloned();
    eventually("the entry is written", async || find().is_some()).await;
    find().unwrap()
}

#[tokio::test]
async fn a_request_has_one_entry_in_the_access_log() {
    tracing::subscriber::set_global_default(AccessLog).unwrap();
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
    assert_eq!(ENTRIES.lock().unwrap().len(), 2);
}
