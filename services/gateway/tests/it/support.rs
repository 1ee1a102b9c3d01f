//! [`Gateway`] is a gateway with a fake registry; a [`FakeInstance`] is an axum router or a script that writes bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use hubspoke_chassis::Config;
use hubspoke_chassis::config::Common;
use hubspoke_gateway::{GatewayConfig, GatewayServer, PROCESS};
use hubspoke_protocol::ServiceInfo;
use hubspoke_testkit::FakeRegistry;
pub(crate) use hubspoke_testkit::raw::{has_whole_body, header, problem, status};
pub(crate) use hubspoke_testkit::{ClosedPort, DEADLINE, RawConn, eventually};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// The gateway's metrics, as `/metrics` names them after `hub_gateway_`; a test compares them with it.
pub(crate) const METRICS: [&str; 18] = [
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
    "refused_hosts",
    "replies",
    "request_duration_seconds_count",
    "requests",
    "retries",
    "waiting",
    "waits",
];

/// A gateway with its registry.
pub(crate) struct Gateway {
    pub(crate) addr: SocketAddr,
    pub(crate) control: SocketAddr,
    pub(crate) tls: Option<SocketAddr>,
    registry: FakeRegistry,
    stop: Option<oneshot::Sender<()>>,
    tasks: JoinSet<()>,
    http: reqwest::Client,
}

impl Gateway {
    /// A gateway for all services. `change` adjusts the default configuration.
    pub(crate) async fn start(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let registry = FakeRegistry::start().await;
        let mut own = GatewayConfig::exposing_all();
        own.workers = 2;
        own.timeouts.wait = Duration::ZERO; // a test that waits says so
        change(&mut own);
        let mut common = Common::of(&PROCESS).unwrap();
        common.listen = "127.0.0.1:0".parse().unwrap();
        common.control_listen = Some("127.0.0.1:0".parse().unwrap());
        common.registry.url = registry.url();
        common.shutdown_grace = Duration::from_secs(3);
        let server = GatewayServer::bind(Config { common, own }).await.unwrap();
        let (addr, control) = (server.local_addr(), server.control_addr());
        let tls = server.tls_addr();
        let (stop, stopped) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { server.run(async { drop(stopped.await) }).await.unwrap() });
        let http = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
        let gateway = Self { addr, control, tls, registry, stop: Some(stop), tasks, http };
        eventually("the gateway is ready", async || gateway.get_control("/readyz").await.0 == 200).await;
        gateway
    }

    /// A gateway with one service of one instance.
    pub(crate) async fn with(service: &str, instance: &FakeInstance) -> Self {
        let gateway = Self::start(|_| ()).await;
        gateway.set(service, &[instance.info(service)]).await;
        gateway
    }

    /// Makes these the instances of a service. The gateway has them when this returns.
    pub(crate) async fn set(&self, service: &str, instances: &[ServiceInfo]) {
        self.registry.publish(service, instances).await;
        // The acknowledgement alone must mean that the gateway has them.
        let (_, metrics) = self.get_control("/metrics").await;
        let want = format!(r#"service="{service}""#);
        let line = metrics.lines().find(|l| l.starts_with("hub_gateway_instances") && l.contains(&want));
        assert!(line.is_some_and(|line| line.ends_with(&format!(" {}", instances.len()))), "{line:?}");
    }

    /// A request of a well-behaved client.
    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method.parse().unwrap(), format!("http://{}{path}", self.addr))
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        self.request("GET", path).send().await.unwrap()
    }

    pub(crate) async fn get_control(&self, path: &str) -> (u16, String) {
        let response = self.http.get(format!("http://{}{path}", self.control)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// The value of the metric `hub_gateway_NAME` whose labels contain all of `labels`; 0 if it is not shown.
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

    pub(crate) async fn connect(&self) -> RawConn {
        RawConn::connect(self.addr).await
    }

    /// Writes bytes on a new connection and returns all that the gateway sends until it closes it.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut raw = self.connect().await;
        raw.write(bytes).await;
        raw.read_to_end().await
    }

    /// Writes bytes on a new connection and returns one response.
    pub(crate) async fn connect_and(&self, bytes: &str) -> String {
        let mut raw = self.connect().await;
        raw.write(bytes).await;
        raw.response().await
    }

    pub(crate) fn begin_shutdown(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until the gateway has stopped.
    pub(crate) async fn stopped(&mut self) {
        tokio::time::timeout(DEADLINE, self.tasks.join_next()).await.unwrap().unwrap().unwrap();
    }
}

/// An instance of a service; stops when dropped.
pub(crate) struct FakeInstance {
    pub(crate) addr: SocketAddr,
    /// Recorded by the script: the requests, unless noted otherwise.
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
    _server: hubspoke_testkit::TestServer,
}

impl FakeInstance {
    pub(crate) fn info(&self, service: &str) -> ServiceInfo {
        ServiceInfo {
            id: Some(format!("{service}-{}", self.addr.port())),
            ..ServiceInfo::new(service, self.addr.to_string())
        }
    }

    /// An axum server.
    pub(crate) async fn serve(router: Router) -> Self {
        let server = hubspoke_testkit::TestServer::start(router).await;
        Self { addr: server.addr, seen: Arc::default(), _server: server }
    }

    /// A server that runs `script` on each connection.
    pub(crate) async fn script<F, Fut>(script: F) -> Self
    where
        F: Fn(RawConn, Arc<Mutex<Vec<String>>>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::script_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), script)
    }

    pub(crate) fn script_on<F, Fut>(listener: TcpListener, script: F) -> Self
    where
        F: Fn(RawConn, Arc<Mutex<Vec<String>>>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let log = seen.clone();
        let server = hubspoke_testkit::TestServer::script_on(listener, move |conn| script(conn, log.clone()));
        Self { addr: server.addr, seen, _server: server }
    }

    /// A server that records each request and answers it with `response`, on connections that stay open.
    pub(crate) async fn responding(response: &'static str) -> Self {
        Self::script(move |mut raw, seen| async move {
            while let Some(request) = raw.request().await {
                seen.lock().unwrap().push(request);
                raw.write(response).await;
            }
        })
        .await
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// A response with a length.
pub(crate) const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// An instance that answers `GET /svc/quick`, and nothing else.
pub(crate) async fn silent() -> FakeInstance {
    FakeInstance::script(|mut raw, seen| async move {
        while let Some(request) = raw.request().await {
            if request.starts_with("GET /svc/quick ") {
                raw.write(HELLO).await;
            } else {
                seen.lock().unwrap().push(request);
            }
        }
    })
    .await
}

pub(crate) async fn problem_of(response: reqwest::Response) -> serde_json::Value {
    assert!(response.headers()["hub-instance"].to_str().unwrap().starts_with("gateway-"));
    let text = response.text().await.unwrap();
    assert!(!text.contains("127.0.0.1"), "an address: {text}");
    serde_json::from_str(&text).unwrap()
}
