//! The watch stream.

use std::time::Duration;

use hubspoke_protocol::{
    CatalogView, ChangeView, InstanceState, LoadView, ProtectionView, ReasonKind, RegistriesView,
    ServiceInfo, sse,
};
use hubspoke_testkit::{DEADLINE, FakeMember, MemberReply, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::fixture::{TestRegistry, failing, quick, slow_removal};

/// A watcher that reads.
struct ReadingWatcher {
    reply: reqwest::Response,
    blocks: sse::Splitter,
}

#[derive(Debug, Default)]
struct WatchedEvent {
    kind: String,
    id: Option<String>,
    data: String,
}

impl ReadingWatcher {
    async fn start(registry: &TestRegistry, query: &str, last: Option<&str>) -> Self {
        let mut request = registry.http.get(registry.url(&format!("/services/watch{query}")));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let reply = request.send().await.unwrap();
        assert_eq!(reply.headers()["content-type"], "text/event-stream");
        Self { reply, blocks: sse::Splitter::new(1 << 26) }
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<WatchedEvent> {
        timeout(DEADLINE, async {
            loop {
                if let Some(block) = self.blocks.next_block() {
                    let mut event = WatchedEvent::default();
                    for (field, value) in sse::fields(block.unwrap()) {
                        let value = std::str::from_utf8(value).unwrap().to_owned();
                        match field {
                            b"event" => event.kind = value,
                            b"id" => event.id = Some(value),
                            b"data" => event.data = value,
                            _ => assert_eq!((field, value.as_str()), (&b""[..], "")),
                        }
                    }
                    return Some(event);
                }
                self.blocks.push(&self.reply.chunk().await.unwrap()?);
            }
        })
        .await
        .expect("an event")
    }

    async fn change(&mut self) -> (String, ChangeView) {
        let mut event = self.next().await.unwrap();
        while matches!(event.kind.as_str(), "load" | "registries") {
            event = self.next().await.unwrap(); // reported once a second
        }
        assert_eq!(event.kind, "change");
        let change: ChangeView = serde_json::from_str(&event.data).unwrap();
        assert_eq!(event.id.as_deref(), Some(change.revision.to_string().as_str()));
        (event.id.unwrap(), change)
    }

    /// Reads until the registries are as expected.
    async fn registries(&mut self, expected: impl Fn(&RegistriesView) -> bool) {
        loop {
            let event = self.next().await.unwrap();
            if event.kind == "registries" && expected(&serde_json::from_str(&event.data).unwrap()) {
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_watcher_gets_a_snapshot_and_then_each_change() {
    let registry = TestRegistry::start().await;
    let (log, visit) = (FakeMember::start().await, FakeMember::start().await);
    registry.register(&log.snapshot_info("log", &[])).await;
    let mut watcher = ReadingWatcher::start(&registry, "", None).await;
    let first = watcher.next().await.unwrap();
    assert_eq!(first.kind, "snapshot");
    let view: CatalogView = serde_json::from_str(&first.data).unwrap();
    assert_eq!(first.id.as_deref(), Some(view.revision.to_string().as_str()));
    assert_eq!(view.services["log"].len(), 1);
    registry.register(&visit.info("visit", &[])).await;
    registry.deregister(&log.info("log", &[])).await;
    let (_, added) = watcher.change().await;
    assert_eq!((added.kind, added.instance.info.name.as_str()), (ReasonKind::Registered, "visit"));
    assert_eq!(added.revision.n, view.revision.n + 1);
    let (_, removed) = watcher.change().await;
    assert_eq!((removed.kind, removed.instance.state), (ReasonKind::Deregistered, InstanceState::Removed));
    assert_eq!(removed.instance.info.push_key, None);
    assert_eq!(removed.revision.n, view.revision.n + 2);
}

#[tokio::test]
async fn a_filter_limits_the_stream_to_its_services() {
    let registry = TestRegistry::start().await;
    let fake = FakeMember::start().await;
    for name in ["a", "b", "c"] {
        registry.register(&fake.info(name, &[])).await;
    }
    let mut watcher = ReadingWatcher::start(&registry, "?service=a&service=c", None).await;
    let view: CatalogView = serde_json::from_str(&watcher.next().await.unwrap().data).unwrap();
    assert_eq!(view.services.keys().collect::<Vec<_>>(), ["a", "c"]);
    for name in ["b", "c"] {
        registry.deregister(&fake.info(name, &[])).await;
    }
    assert_eq!(watcher.change().await.1.instance.info.name, "c");
}

#[tokio::test]
async fn a_watcher_that_reconnects_gets_what_it_missed_or_a_snapshot() {
    let mut settings = quick();
    settings.history.changes = 4;
    let registry = TestRegistry::with(settings).await;
    let fake = FakeMember::start().await;
    registry.register(&fake.info("a", &[])).await;
    let mut watcher = ReadingWatcher::start(&registry, "", None).await;
    let seen = watcher.next().await.unwrap().id.unwrap();
    drop(watcher);
    registry.register(&fake.info("b", &[])).await;
    registry.register(&fake.info("c", &[])).await;
    let mut watcher = ReadingWatcher::start(&registry, "", Some(&seen)).await;
    assert_eq!(watcher.change().await.1.instance.info.name, "b");
    let (newest, change) = watcher.change().await;
    assert_eq!(change.instance.info.name, "c");

    let mut watcher = ReadingWatcher::start(&registry, "", Some(&newest)).await;
    registry.register(&fake.info("d", &[])).await;
    assert_eq!(watcher.change().await.1.instance.info.name, "d", "nothing was missed");

    for i in 0..3 {
        registry.register(&fake.info(&format!("e{i}"), &[])).await;
    }
    for last in [seen.as_str(), "1.1", "nonsense"] {
        let mut watcher = ReadingWatcher::start(&registry, "", Some(last)).await;
        assert_eq!(watcher.next().await.unwrap().kind, "snapshot", "{last} can't be resumed from");
    }
}

#[tokio::test]
async fn load_events_carry_what_heartbeats_report() {
    let registry = TestRegistry::start().await;
    let log = FakeMember::start().await;
    log.on_heartbeat(MemberReply::Body(r#"{"Requests":1,"InFlight":0}"#.into()));
    registry.register(&log.info("log", &[])).await;
    let mut watcher = ReadingWatcher::start(&registry, "", None).await;
    watcher.next().await.unwrap();
    log.on_heartbeat(MemberReply::Body(r#"{"Requests":5,"InFlight":2}"#.into()));
    let load = loop {
        let event = watcher.next().await.unwrap();
        assert_eq!((event.kind.as_str(), event.id), ("load", None));
        let load: LoadView = serde_json::from_str(&event.data).unwrap();
        let heartbeat = &load.services["log"][&log.addr];
        assert!(heartbeat.last_heartbeat.ends_with('Z'));
        let load = heartbeat.load.unwrap();
        if load.requests == 5 {
            break load;
        }
    };
    assert_eq!(load.in_flight, Some(2));
}

#[tokio::test]
async fn watchers_follow_self_protection_from_beginning_to_end() {
    let mut settings = slow_removal();
    settings.protection.max = Duration::from_secs(3);
    let registry = TestRegistry::with(settings).await;
    let mut watcher = ReadingWatcher::start(&registry, "?service=other", None).await;
    let _logs = failing(&registry, 12).await;
    let mut seen: Vec<ProtectionView> = Vec::new();
    while seen.last().is_none_or(|last| last.until.is_some()) {
        let event = watcher.next().await.unwrap();
        if event.kind == "protection" {
            seen.push(serde_json::from_str(&event.data).unwrap());
        }
    }
    assert!(seen[0].until.is_some() && seen.iter().any(|seen| seen.held_back == 12), "{seen:?}");
    registry.call(reqwest::Method::PUT, "/protection", r#"{"Enabled":false}"#).await;
    while !watcher.next().await.unwrap().data.contains("\"Enabled\":false") {}
}

#[tokio::test]
async fn watchers_follow_which_registries_there_are() {
    let Some(mut etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    let a = TestRegistry::on_etcd(&etcd, quick()).await;
    let b = TestRegistry::on_etcd(&etcd, quick()).await;
    let mut watcher = ReadingWatcher::start(&a, "?service=other", None).await;
    let snapshot = watcher.next().await.unwrap();
    let view: CatalogView = serde_json::from_str(&snapshot.data).unwrap();
    let registries = view.registries.expect("they are part of the snapshot");
    assert!(registries.etcd_up);
    assert!(registries.registries.iter().any(|one| one.asked && one.addr == a.addr.to_string()));
    // One that resumes has no snapshot, and learns it.
    let mut resumed = ReadingWatcher::start(&a, "", snapshot.id.as_deref()).await;
    resumed.registries(|view| view.etcd_up && view.registries.len() == 2).await;
    let (_, of_b) = b.kill().await;
    watcher.registries(|view| view.registries.len() == 1).await;
    let c = TestRegistry::on_etcd(&etcd, quick()).await;
    let of = |view: &RegistriesView, addr: std::net::SocketAddr| {
        view.registries.iter().any(|one| one.addr == addr.to_string() && !one.asked)
    };
    watcher.registries(|view| of(view, c.addr) && !of(view, of_b)).await;
    etcd.kill(0).await;
    watcher.registries(|view| !view.etcd_up && view.etcd_error.is_some() && of(view, c.addr)).await;
    etcd.restart(0).await;
    watcher.registries(|view| view.etcd_up && view.etcd_error.is_none()).await;
}

/// A watcher that does not read, with a small receive buffer.
async fn stuck(registry: &TestRegistry) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stuck = socket.connect(registry.addr).await.unwrap();
    stuck.write_all(b"GET /services/watch HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    stuck
}

/// Checks that the connection is reset, which differs from the end of the stream.
async fn is_reset(mut stuck: TcpStream) {
    let ended = timeout(Duration::from_secs(5), stuck.read_to_end(&mut Vec::new())).await;
    assert_eq!(ended.expect("it ends").unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_disconnected_and_delays_no_other() {
    let registry = TestRegistry::start().await;
    let fake = FakeMember::start().await;
    let stuck = stuck(&registry).await;
    let mut reading = ReadingWatcher::start(&registry, "", None).await;
    reading.next().await.unwrap();
    // Events of about 4 KiB, far more than sockets and backlog take.
    let meta = [("padding".to_owned(), "x".repeat(4000))].into();
    let cut_off = || async { registry.metric("hub_registry_watchers_cut_off_total").await == 1.0 };
    let mut info = ServiceInfo { meta, ..fake.info("a", &[]) };
    for i in 0..12_000 {
        info.id = Some(format!("start-{i}"));
        assert_eq!(registry.register(&info).await.status, 200);
        reading.change().await;
        if i % 100 == 99 && cut_off().await {
            return is_reset(stuck).await;
        }
    }
    panic!("it is still connected");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_watcher_that_does_not_read() {
    let mut settings = quick();
    settings.limits.meta = bytesize::ByteSize::mib(1);
    settings.limits.body = bytesize::ByteSize::mib(2);
    settings.limits.memory = bytesize::ByteSize::mib(256);
    let registry = TestRegistry::with(settings).await;
    let fake = FakeMember::start().await;
    // A snapshot larger than socket buffers.
    for i in 0..32 {
        let mut info = fake.info(&format!("a{i}"), &[]);
        info.meta.insert("padding".into(), "x".repeat(1_000_000));
        assert_eq!(registry.register(&info).await.status, 200);
    }
    let stuck = stuck(&registry).await;
    stuck.readable().await.unwrap();
    let start = tokio::time::Instant::now();
    registry.stop().await;
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    is_reset(stuck).await;
}

#[tokio::test]
async fn excess_watchers_are_refused_and_a_stop_ends_the_others() {
    let mut settings = quick();
    settings.limits.watchers = 2;
    let registry = TestRegistry::with(settings).await;
    let mut one = ReadingWatcher::start(&registry, "", None).await;
    let two = ReadingWatcher::start(&registry, "", None).await;
    one.next().await.unwrap();
    let refused = registry.call(reqwest::Method::GET, "/services/watch", "").await;
    assert_eq!(refused.problem(), 429);
    drop(two);
    eventually("there is room again", || async {
        let reply = registry.http.get(registry.url("/services/watch")).send().await.unwrap();
        reply.status() == 200
    })
    .await;
    let start = tokio::time::Instant::now();
    registry.stop().await;
    while one.next().await.is_some() {}
    assert!(start.elapsed() < Duration::from_secs(4), "the drain does not wait for watchers");
}
