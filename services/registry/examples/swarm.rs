//! Thousands of members in one process, as load for registries; driven by `tests/bench/registry.py` and
//! `tests/bench/etcd.py`.
//!
//! They cost as little as possible, so that the registry dominates the measurement: one listener for all of 127/8, an
//! HTTP parser that knows only what a registry sends, and no allocation per request. Not an example of a member.
//!
//!     swarm register REGISTRY INSTANCES SECONDS [hubspoke|renew|consul|etcd]
//!     swarm heartbeats REGISTRY INSTANCES SECONDS
//!     swarm dependents REGISTRY DEPENDENTS INSTANCES SECONDS [snapshot|event]
//!
//! REGISTRY may be several addresses, separated by commas: connections are spread over them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark tool, which ends at the first error"
)]

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections to the registry.
const CONNECTIONS: usize = 64;
/// The instances are spread over this many services.
const SERVICES: usize = 100;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let number = |text: &str| text.parse::<usize>().expect("a number");
        let addrs = |text: &str| text.split(',').map(|addr| addr.parse().expect("an address")).collect();
        match args[..] {
            ["register", registry, instances, seconds, ref kind @ ..] => {
                let kind = kind.first().copied().unwrap_or("hubspoke").to_owned();
                register(addrs(registry), number(instances), number(seconds), kind).await;
            }
            ["heartbeats", registry, instances, seconds] => {
                heartbeats(addrs(registry), number(instances), number(seconds)).await;
            }
            ["dependents", registry, dependents, instances, seconds, ref mode @ ..] => {
                let mode = mode.first().copied().unwrap_or("snapshot");
                let (dependents, instances) = (number(dependents), number(instances));
                dependents_of(addrs(registry), dependents, instances, number(seconds), mode).await;
            }
            _ => panic!("usage: see the documentation of examples/swarm.rs"),
        }
    });
}

/// Counters of the heartbeats and pushes that the members have received.
struct MemberStats {
    heartbeats: AtomicU64,
    push_bytes: AtomicU64,
    /// By dependent: the newest revision that was pushed to it, and when (µs since the start).
    pushed: Vec<(AtomicU64, AtomicU64)>,
    start: Instant,
}

/// The address of a member: 127.1.0.1 and up.
fn ip(member: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x7f01_0001 + u32::try_from(member).unwrap())
}

fn member(ip: Ipv4Addr) -> usize {
    u32::from(ip).wrapping_sub(0x7f01_0001) as usize
}

async fn swarm(members: usize) -> (u16, Arc<MemberStats>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("0.0.0.0:0".parse().unwrap()).unwrap();
    let listener = socket.listen(8192).unwrap();
    let port = listener.local_addr().unwrap().port();
    let pushed = (0..members).map(|_| Default::default()).collect();
    let start = Instant::now();
    let received =
        MemberStats { heartbeats: AtomicU64::new(0), push_bytes: AtomicU64::new(0), pushed, start };
    let received = Arc::new(received);
    tokio::spawn(accept(listener, received.clone()));
    (port, received)
}

async fn accept(listener: TcpListener, received: Arc<MemberStats>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let received = received.clone();
        tokio::spawn(async move {
            let _ = answer(stream, &received).await; // ends with the connection
        });
    }
}

async fn answer(mut stream: TcpStream, received: &MemberStats) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let SocketAddr::V4(local) = stream.local_addr()? else { return Ok(()) };
    let member = member(*local.ip());
    let mut buffer = Vec::with_capacity(1024);
    loop {
        let (head, mut rest) = loop {
            if let Some(head) = MessageHead::parse(&buffer) {
                let rest = buffer.len() - head.length;
                break (head, rest);
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        while rest < head.body {
            buffer.clear();
            buffer.reserve(16 * 1024);
            let read = stream.read_buf(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            rest += read;
        }
        buffer.clear();
        if buffer.capacity() > 4096 {
            buffer = Vec::with_capacity(1024);
        }
        if head.is_get {
            received.heartbeats.fetch_add(1, Relaxed);
        } else if let Some((revision, at)) = received.pushed.get(member) {
            received.push_bytes.fetch_add(head.body as u64, Relaxed);
            at.store(u64::try_from(received.start.elapsed().as_micros()).unwrap(), Relaxed);
            revision.store(head.revision, Relaxed);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
    }
}

/// The parts of the head of a request or response that matter here.
struct MessageHead {
    length: usize,
    body: usize,
    revision: u64,
    is_get: bool,
    is_ok: bool,
}

impl MessageHead {
    fn parse(buffer: &[u8]) -> Option<Self> {
        let end = buffer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let text = std::str::from_utf8(&buffer[..end]).ok()?;
        let mut head = Self {
            length: end + 4,
            body: 0,
            revision: 0,
            is_get: text.starts_with("GET "),
            is_ok: text.starts_with("HTTP/1.1 200"),
        };
        for line in text.lines() {
            let Some((name, value)) = line.split_once(": ") else { continue };
            if name.eq_ignore_ascii_case("content-length") {
                head.body = value.parse().ok()?;
            } else if name.eq_ignore_ascii_case("hub-revision") {
                head.revision = value.split_once('.')?.1.parse().ok()?;
            }
        }
        Some(head)
    }
}

/// A connection to the registry.
struct RegistryConn {
    stream: TcpStream,
    out: Vec<u8>,
    buffer: Vec<u8>,
}

impl RegistryConn {
    async fn open(registry: SocketAddr) -> Self {
        let stream = TcpStream::connect(registry).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, out: Vec::new(), buffer: Vec::with_capacity(64 * 1024) }
    }

    /// Sends a request and reads the response; returns its revision.
    async fn call(&mut self, method: &str, path: &str, body: &str) -> u64 {
        self.out.clear();
        write!(
            self.out,
            "{method} {path} HTTP/1.1\r\nhost: registry\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        self.stream.write_all(&self.out).await.unwrap();
        self.buffer.clear();
        loop {
            assert!(
                self.stream.read_buf(&mut self.buffer).await.unwrap() > 0,
                "the registry closed the connection"
            );
            if let Some(head) = MessageHead::parse(&self.buffer)
                && self.buffer.len() >= head.length + head.body
            {
                assert!(head.is_ok, "{}", String::from_utf8_lossy(&self.buffer));
                return head.revision;
            }
        }
    }
}

fn info(i: usize, start: usize, port: u16, required: &str) -> String {
    let (service, ip) = (i % SERVICES, ip(i));
    format!(
        r#"{{"Name":"service-{service}","Addr":"{ip}:{port}","RequiredServices":[{required}],"Id":"service-{service}-{start:016x}","Push":"snapshot"}}"#
    )
}

/// Sends these requests over all connections, and waits for all responses.
async fn send_all(
    registries: &[SocketAddr],
    count: usize,
    request: impl Fn(usize) -> (&'static str, &'static str, String) + Send + Sync + 'static,
) {
    let (next, request) = (Arc::new(AtomicUsize::new(0)), Arc::new(request));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..CONNECTIONS {
        let (next, request, registry) = (next.clone(), request.clone(), registries[n % registries.len()]);
        tasks.spawn(async move {
            let mut connection = RegistryConn::open(registry).await;
            loop {
                let n = next.fetch_add(1, Relaxed);
                if n >= count {
                    return;
                }
                let (method, path, body) = request(n);
                connection.call(method, path, &body).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// Registers `instances` once, then keeps replacing them with new Ids, so that their number does not change.
async fn register(registries: Vec<SocketAddr>, instances: usize, seconds: usize, kind: String) {
    let (port, _) = swarm(0).await;
    let next = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    let kind: Arc<str> = kind.into();
    let request = move |n: usize| -> (&'static str, &'static str, String) {
        let i = n % instances;
        match &*kind {
            "consul" => {
                let service = i % SERVICES;
                let body = format!(
                    r#"{{"Node":"node-{i}","Address":"127.0.0.1","Service":{{"ID":"s-{i}","Service":"service-{service}","Port":80,"Tags":["{n}"]}}}}"#
                );
                ("PUT", "/v1/catalog/register", body)
            }
            // Keys and values must be base64, which these are.
            "etcd" => ("POST", "/v3/kv/put", format!(r#"{{"key":"a{i:07}","value":"{n:0100}"}}"#)),
            "renew" => ("POST", "/services", info(i, 0, port, "\"service-0\"")),
            _ => ("POST", "/services", info(i, n, port, "\"log\"")),
        }
    };
    send_all(&registries, instances, request.clone()).await;
    next.store(instances, Relaxed);
    println!("registered");
    wait_for_line().await;
    let end = Instant::now() + Duration::from_secs(seconds as u64);
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..CONNECTIONS {
        let (next, done, request) = (next.clone(), done.clone(), request.clone());
        let registry = registries[n % registries.len()];
        tasks.spawn(async move {
            let mut connection = RegistryConn::open(registry).await;
            let mut latencies = Vec::new();
            while Instant::now() < end {
                let (method, path, body) = request(next.fetch_add(1, Relaxed));
                let sent = Instant::now();
                connection.call(method, path, &body).await;
                latencies.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
                done.fetch_add(1, Relaxed);
            }
            latencies
        });
    }
    let mut latencies = Vec::new();
    while let Some(some) = tasks.join_next().await {
        latencies.extend(some.unwrap());
    }
    let elapsed = start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let done = done.load(Relaxed);
    println!("{done} {elapsed:.3} {}", latencies[latencies.len() * 99 / 100]);
}

/// Registers `instances` and answers their heartbeats.
async fn heartbeats(registries: Vec<SocketAddr>, instances: usize, seconds: usize) {
    let (port, received) = swarm(0).await;
    send_all(&registries, instances, move |i| ("POST", "/services", info(i, i, port, ""))).await;
    let bytes: usize = (0..instances).map(|i| info(i, i, port, "").len()).sum();
    println!("registered {}", bytes / instances);
    wait_for_line().await;
    let before = received.heartbeats.load(Relaxed);
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    println!("{}", received.heartbeats.load(Relaxed) - before);
}

/// One service of `instances`, its `dependents`, and one change per second: measures how long each takes to arrive.
async fn dependents_of(
    registries: Vec<SocketAddr>,
    dependents: usize,
    instances: usize,
    seconds: usize,
    mode: &str,
) {
    let (port, received) = swarm(dependents).await;
    let big = move |i: usize, start: usize| {
        let ip = ip(dependents + i);
        format!(r#"{{"Name":"big","Addr":"{ip}:{port}","RequiredServices":[],"Id":"big-{start:016x}"}}"#)
    };
    let mode = mode.to_owned();
    let dependent = move |i: usize| {
        let ip = ip(i);
        format!(
            r#"{{"Name":"dependent","Addr":"{ip}:{port}","RequiredServices":["big"],"Id":"d-{i}","Push":"{mode}"}}"#
        )
    };
    send_all(&registries, instances, move |i| ("POST", "/services", big(i, i))).await;
    send_all(&registries, dependents, move |i| ("POST", "/services", dependent(i))).await;
    let mut connection = RegistryConn::open(registries[0]).await;
    println!("registered");
    wait_for_line().await;
    let mut last = Vec::new();
    let mut all = Vec::new();
    for second in 0..seconds {
        let began = Instant::now();
        let sent = u64::try_from(received.start.elapsed().as_micros()).unwrap();
        // One instance is added or removed: one change each.
        let (method, i) = if second % 2 == 0 { ("POST", instances) } else { ("DELETE", instances) };
        let body = big(i, instances + second / 2);
        let revision = connection.call(method, "/services", &body).await;
        let mut times: Vec<u64>;
        loop {
            let has = |(known, _): &&(AtomicU64, AtomicU64)| known.load(Relaxed) >= revision;
            if received.pushed.iter().filter(has).count() == dependents {
                times = received.pushed.iter().map(|(_, at)| at.load(Relaxed).saturating_sub(sent)).collect();
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "a dependent got no push");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.sort_unstable();
        last.push(times[dependents - 1]);
        all.extend(times);
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(began.elapsed())).await;
    }
    last.sort_unstable();
    all.sort_unstable();
    let at = |list: &[u64], percent: usize| list[(list.len() - 1) * percent / 100];
    println!(
        "{} {} {} {} {}",
        at(&all, 50),
        at(&all, 99),
        at(&last, 50),
        at(&last, 100),
        received.push_bytes.load(Relaxed) / seconds as u64
    );
}

/// Waits for the driver, which first reads the registry's counters.
async fn wait_for_line() {
    std::io::stdout().flush().unwrap();
    let line = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    line.await.unwrap().unwrap();
}
