//! What the tests stand on: [`Hub`] is a gateway with a registry of the test's own; instances are axum routers or
//! scripts that write bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use hubspoke_chassis::Config;
use hubspoke_chassis::config::Common;
use hubspoke_gateway::{GatewayConfig, PROCESS, Server};
use hubspoke_protocol::{HUB_REVISION, Revision, ServiceInfo, ServiceLists, Snapshot};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Nothing that a test waits for takes longer, on a busy machine either.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The gateway's metrics, as `/metrics` shows them after `hub_gateway_`; a test holds them to what it shows.
pub(crate) const METRICS: [&str; 15] = [
    "connections",
    "connections_opened",
    "ejected",
    "ejections",
    "failures",
    "in_flight",
    "instance_failures",
    "instances",
    "picks",
    "pooled",
    "refusals",
    "replies",
    "request_duration_seconds_count",
    "requests",
    "retries",
];

/// A gateway with its registry.
pub(crate) struct Hub {
    pub(crate) addr: SocketAddr,
    pub(crate) control: SocketAddr,
    catalogue: Arc<Catalogue>,
    stop: Option<oneshot::Sender<()>>,
    tasks: JoinSet<()>,
    http: reqwest::Client,
}

#[derive(Default)]
struct Catalogue {
    lists: Mutex<(u64, BTreeMap<String, Vec<ServiceInfo>>)>,
    gateway: Mutex<Option<ServiceInfo>>,
}

impl Hub {
    /// A gateway for every service, with the defaults but for what `change` does.
    pub(crate) async fn start(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let catalogue = Arc::new(Catalogue::default());
        let registry = Router::new()
            .route("/services", post(register).delete(async || ()))
            .with_state(catalogue.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry_addr = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, registry).await.unwrap() });

        let mut own = GatewayConfig { expose: vec!["*".to_owned()], workers: 2, ..GatewayConfig::default() };
        change(&mut own);
        let mut common = Common::of(&PROCESS).unwrap();
        common.listen = "127.0.0.1:0".parse().unwrap();
        common.control_listen = Some("127.0.0.1:0".parse().unwrap());
        common.registry.url = format!("http://{registry_addr}");
        common.shutdown_grace = Duration::from_secs(3);
        let server = Server::bind(Config { common, own }).await.unwrap();
        let (addr, control) = (server.local_addr(), server.control_addr());
        let (stop, stopped) = oneshot::channel();
        tasks.spawn(async move { server.run(async { drop(stopped.await) }).await.unwrap() });
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let hub = Self { addr, control, catalogue, stop: Some(stop), tasks, http };
        until("the gateway is ready", async || hub.get_control("/readyz").await.0 == 200).await;
        hub
    }

    /// A gateway with one service of one instance.
    pub(crate) async fn with(service: &str, instance: &Instance) -> Self {
        let hub = Self::start(|_| ()).await;
        hub.set(service, &[instance.info(service)]).await;
        hub
    }

    /// Makes these the instances of a service; the gateway knows when this returns.
    pub(crate) async fn set(&self, service: &str, instances: &[ServiceInfo]) {
        let snapshot = {
            let mut lists = self.catalogue.lists.lock().unwrap();
            lists.0 += 1;
            lists.1.insert(service.to_owned(), instances.to_vec());
            Snapshot { revision: Revision { epoch: 1, n: lists.0 }, services: ServiceLists(lists.1.clone()) }
        };
        let member = self.catalogue.gateway.lock().unwrap().clone().unwrap();
        let reply = self
            .http
            .put(format!("http://{}/services", member.control_addr()))
            .bearer_auth(member.push_key.clone().unwrap())
            .json(&snapshot)
            .send()
            .await
            .unwrap();
        assert_eq!(reply.status(), 200);
        // The acknowledgement says so already.
        let (_, metrics) = self.get_control("/metrics").await;
        let want = format!(r#"service="{service}""#);
        let line = metrics.lines().find(|l| l.starts_with("hub_gateway_instances") && l.contains(&want));
        assert!(line.is_some_and(|line| line.ends_with(&format!(" {}", instances.len()))), "{line:?}");
    }

    /// One request of a well-behaved client.
    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method.parse().unwrap(), format!("http://{}{path}", self.addr))
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        self.request("GET", path).send().await.unwrap()
    }

    pub(crate) async fn get_control(&self, path: &str) -> (u16, String) {
        let reply = self.http.get(format!("http://{}{path}", self.control)).send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    }

    /// The value of the metric `hub_gateway_NAME` whose labels contain all of `labels`, or 0 where nothing was counted
    /// yet.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        assert!(METRICS.contains(&name), "there is no metric {name}");
        let (_, metrics) = self.get_control("/metrics").await;
        let line = metrics.lines().find(|line| {
            let rest = line.strip_prefix("hub_gateway_").and_then(|line| line.strip_prefix(name));
            let rest = rest.map(|rest| rest.strip_prefix("_total").unwrap_or(rest));
            rest.is_some_and(|rest| {
                rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label))
            })
        });
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    pub(crate) async fn connect(&self) -> Raw {
        Raw(TcpStream::connect(self.addr).await.unwrap())
    }

    /// Writes bytes on a new connection and returns all that comes until the gateway closes it.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut raw = self.connect().await;
        raw.write(bytes).await;
        raw.rest().await
    }

    /// Writes bytes on a new connection and returns one reply.
    pub(crate) async fn connect_and(&self, bytes: &str) -> String {
        let mut raw = self.connect().await;
        raw.write(bytes).await;
        raw.reply().await
    }

    /// Begins the shutdown.
    pub(crate) fn begin_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Done when the gateway has stopped.
    pub(crate) async fn stopped(&mut self) {
        tokio::time::timeout(PATIENCE, self.tasks.join_next()).await.unwrap().unwrap().unwrap();
    }
}

async fn register(
    State(catalogue): State<Arc<Catalogue>>,
    body: Bytes,
) -> (HeaderMap, axum::Json<ServiceLists>) {
    *catalogue.gateway.lock().unwrap() = Some(serde_json::from_slice(&body).unwrap());
    let lists = catalogue.lists.lock().unwrap();
    let revision = Revision { epoch: 1, n: lists.0 };
    let headers =
        HeaderMap::from_iter([(HUB_REVISION.parse().unwrap(), revision.to_string().parse().unwrap())]);
    (headers, axum::Json(ServiceLists(lists.1.clone())))
}

/// A client that writes and reads bytes.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads until the text so far satisfies `enough`, or the other side has closed.
    pub(crate) async fn read_until(&mut self, enough: impl Fn(&str) -> bool) -> String {
        let mut read = Vec::new();
        let reading = async {
            while !enough(&String::from_utf8_lossy(&read)) {
                match self.0.read_buf(&mut read).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
        };
        let late = tokio::time::timeout(PATIENCE, reading).await.is_err();
        let text = String::from_utf8_lossy(&read).into_owned();
        assert!(!late, "nothing more came after {text:?}");
        text
    }

    pub(crate) async fn rest(&mut self) -> String {
        self.read_until(|_| false).await
    }

    /// Reads one reply that has a length.
    pub(crate) async fn reply(&mut self) -> String {
        self.read_until(is_whole).await
    }
}

/// Whether this is a reply that has a length, with all of it.
pub(crate) fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = header(head, "content-length").map_or(0, |value| value.parse().unwrap());
    body.len() >= length
}

/// The status of a raw reply.
pub(crate) fn status(reply: &str) -> u16 {
    reply.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// A field of a raw head.
pub(crate) fn header(head: &str, name: &str) -> Option<String> {
    let head = head.split("\r\n\r\n").next()?;
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned()))
}

/// The problem document in a raw reply.
pub(crate) fn problem(reply: &str) -> Value {
    assert_eq!(header(reply, "content-type").as_deref(), Some("application/problem+json"), "{reply}");
    let body = reply.split_once("\r\n\r\n").unwrap().1;
    let problem: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {reply}"));
    assert_eq!(problem["type"], format!("urn:hubspoke:problem:{}", problem["cause"].as_str().unwrap()));
    problem
}

/// An instance of a service; ends when dropped.
pub(crate) struct Instance {
    pub(crate) addr: SocketAddr,
    /// Heads of the requests that came, as they came.
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Instance {
    pub(crate) fn info(&self, service: &str) -> ServiceInfo {
        ServiceInfo {
            id: Some(format!("{service}-{}", self.addr.port())),
            ..ServiceInfo::new(service, self.addr.to_string())
        }
    }

    /// An axum server.
    pub(crate) async fn serve(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { addr, seen: Arc::default(), _tasks: tasks }
    }

    /// A server that does with each connection what `script` says.
    pub(crate) async fn script<F, Fut>(script: F) -> Self
    where
        F: Fn(Raw, Arc<Mutex<Vec<String>>>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::script_on(listener, script)
    }

    pub(crate) fn script_on<F, Fut>(listener: TcpListener, script: F) -> Self
    where
        F: Fn(Raw, Arc<Mutex<Vec<String>>>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let addr = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let log = seen.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(script(Raw(stream), log.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { addr, seen, _tasks: tasks }
    }

    /// A server that notes each request and answers it with `reply`, on connections that stay open.
    pub(crate) async fn reply(reply: &'static str) -> Self {
        Self::script(move |mut raw, seen| async move {
            while let Some(request) = raw.request().await {
                seen.lock().unwrap().push(request);
                raw.write(reply).await;
            }
        })
        .await
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Raw {
    /// Reads one request with its body, where that has a length or is chunked; `None` at the end.
    pub(crate) async fn request(&mut self) -> Option<String> {
        let mut read = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let chunked = header(head, "transfer-encoding").is_some();
                let length = header(head, "content-length").map_or(0, |value| value.parse().unwrap());
                let last_chunk = body.starts_with("0\r\n") || body.contains("\r\n0\r\n");
                let ended =
                    if chunked { last_chunk && body.ends_with("\r\n\r\n") } else { body.len() >= length };
                if ended {
                    return Some(text);
                }
            }
            if self.0.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}

/// A reply with a length.
pub(crate) const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
