//! A real etcd on loopback, of one node or three, and what can happen to it. A test that needs one is skipped on a machine
//! without etcd, unless `HUBSPOKE_TEST_REQUIRE_ETCD` is `1`.
//!
//! ```no_run
//! # async fn test() {
//! let Some(mut etcd) = hubspoke_testkit::etcd::start(3).await else { return };
//! let leader = etcd.leader().await;
//! etcd.kill(leader).await;
//! etcd.restart(leader).await;
//! # }
//! ```

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::timeout;

use crate::process;
use crate::wait::eventually;

pub use self::proxy::Proxy;

mod proxy;

/// How long a call to a node may take.
const CALL: Duration = Duration::from_secs(1);
/// Starts to try: another process may take a free port before etcd does.
const STARTS: usize = 5;

/// A cluster. Its nodes are killed when it is dropped.
#[derive(Debug)]
pub struct EtcdCluster {
    program: PathBuf,
    args: Vec<String>,
    tls: Option<EtcdTls>,
    nodes: Vec<Node>,
    folder: TempDir,
}

/// Files with which each node also speaks TLS, and asks clients for a certificate.
#[derive(Debug, Clone)]
pub struct EtcdTls {
    /// The authority of clients' certificates.
    pub ca: PathBuf,
    /// The nodes' certificate, for 127.0.0.1.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A cold backup of a cluster.
#[derive(Debug)]
pub struct Backup(TempDir);

#[derive(Debug)]
struct Node {
    client: SocketAddr,
    tls: SocketAddr,
    peer: SocketAddr,
    child: Option<Child>,
}

/// Starts a cluster and waits until it has a leader. `None` if there is no etcd on this machine: then the test returns.
pub async fn start(nodes: usize) -> Option<EtcdCluster> {
    start_with(nodes, &[]).await
}

/// [`start`] with more arguments for each node.
pub async fn start_with(nodes: usize, args: &[&str]) -> Option<EtcdCluster> {
    launch(nodes, args, None).await
}

/// One node that also speaks TLS.
pub async fn start_with_tls(tls: EtcdTls) -> Option<EtcdCluster> {
    launch(1, &[], Some(tls)).await
}

/// # Panics
/// If it can't be started; without etcd, if `HUBSPOKE_TEST_REQUIRE_ETCD` is `1`.
async fn launch(nodes: usize, args: &[&str], tls: Option<EtcdTls>) -> Option<EtcdCluster> {
    let Some(program) = program() else {
        let required = std::env::var("HUBSPOKE_TEST_REQUIRE_ETCD").is_ok_and(|value| value == "1");
        assert!(!required, "HUBSPOKE_TEST_REQUIRE_ETCD is 1, and there is no etcd in PATH");
        #[allow(clippy::print_stderr, reason = "whoever runs the tests shall know")]
        {
            eprintln!("skipped: no etcd in PATH");
        }
        return None;
    };
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    for _ in 0..STARTS {
        let folder = tempfile::tempdir().unwrap();
        let nodes = addrs(3 * nodes).chunks(3).map(Node::new).collect();
        let (program, args, tls) = (program.clone(), args.clone(), tls.clone());
        let mut cluster = EtcdCluster { program, args, tls, nodes, folder };
        for node in 0..cluster.nodes.len() {
            cluster.spawn(node);
        }
        if cluster.ready().await {
            return Some(cluster);
        }
    }
    panic!("etcd ends as soon as it is started");
}

impl EtcdCluster {
    /// The URL of each node.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("http://{}", node.client)).collect()
    }

    /// The URL for TLS of each node.
    pub fn tls_endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("https://{}", node.tls)).collect()
    }

    /// The client address of a node.
    pub fn addr(&self, node: usize) -> SocketAddr {
        self.nodes[node].client
    }

    /// Waits until the cluster has a leader. `false` if a node has ended by itself.
    pub async fn ready(&mut self) -> bool {
        let mut ended = false;
        eventually("etcd has a leader", async || {
            for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
                ended |= child.try_wait().unwrap().is_some();
            }
            ended || self.find_leader().await.is_some()
        })
        .await;
        !ended
    }

    /// The node that leads.
    pub async fn leader(&self) -> usize {
        let mut leader = None;
        eventually("etcd has a leader", async || {
            leader = self.find_leader().await;
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }

    /// A metric of the first node.
    pub async fn metric(&self, name: &str) -> f64 {
        let metrics = self.exchange(0, "GET", "/metrics", "").await.unwrap();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap().parse().unwrap()
    }

    /// The process of a node, for signals.
    pub fn pid(&self, node: usize) -> u32 {
        self.nodes[node].child.as_ref().and_then(Child::id).expect("the node is not running")
    }

    /// Sends a signal (`STOP`, `CONT`) to a node.
    pub async fn signal(&self, node: usize, name: &str) {
        process::signal(self.nodes[node].child.as_ref().expect("the node is not running"), name).await;
    }

    /// Kills a node with SIGKILL.
    pub async fn kill(&mut self, node: usize) {
        process::kill(self.nodes[node].child.take().expect("the node is not running")).await;
    }

    /// Kills all nodes.
    pub async fn kill_all(&mut self) {
        for node in self.running() {
            self.kill(node).await;
        }
    }

    /// Starts a node again, with its data and its addresses.
    pub async fn restart(&mut self, node: usize) {
        assert!(self.nodes[node].child.is_none(), "the node is running");
        self.spawn(node);
        assert!(self.ready().await);
    }

    /// Starts all nodes again.
    pub async fn restart_all(&mut self) {
        for node in 0..self.nodes.len() {
            assert!(self.nodes[node].child.is_none(), "the node is running");
            self.spawn(node);
        }
        assert!(self.ready().await);
    }

    /// Copies the data of all nodes, which must not run.
    pub fn backup(&self) -> Backup {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(self.folder.path(), copy.path());
        Backup(copy)
    }

    /// Replaces the data of all nodes, which must not run, by that of a backup.
    pub fn restore(&self, backup: &Backup) {
        self.wipe();
        copy_folder(backup.0.path(), self.folder.path());
    }

    /// Removes the data of all nodes, which must not run.
    pub fn wipe(&self) {
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
    }

    /// Compacts everything before the current revision.
    pub async fn compact(&self) {
        let reply = self.call_any("/v3/kv/range", json!({ "key": text("a") })).await.expect("a revision");
        let revision = &reply["header"]["revision"];
        let compacted = self.call_any("/v3/kv/compaction", json!({ "revision": revision, "physical": true }));
        compacted.await.expect("compacted");
    }

    /// Switches authentication on: the users `root` and `hub`, each with its name as password. `hub` may do what it
    /// wants with the keys below `prefix`.
    pub async fn enable_auth(&self, prefix: &str) {
        let range = json!({ "permType": "READWRITE", "key": text(prefix), "range_end": text(&format!("{prefix}\u{7f}")) });
        for (path, body) in [
            ("/v3/auth/user/add", json!({ "name": "root", "password": "root" })),
            ("/v3/auth/user/add", json!({ "name": "hub", "password": "hub" })),
            ("/v3/auth/role/add", json!({ "name": "hub" })),
            ("/v3/auth/role/grant", json!({ "name": "hub", "perm": range })),
            ("/v3/auth/user/grant", json!({ "user": "hub", "role": "hub" })),
            ("/v3/auth/user/grant", json!({ "user": "root", "role": "root" })),
            ("/v3/auth/enable", json!({})),
        ] {
            self.call_any(path, body).await.unwrap_or_else(|| panic!("{path}"));
        }
    }

    /// Calls etcd's JSON gateway at the first node that answers with 200.
    pub async fn call_any(&self, path: &str, body: Value) -> Option<Value> {
        for node in self.running() {
            if let Some(reply) = self.call(node, path, body.clone()).await {
                return Some(reply);
            }
        }
        None
    }

    fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].child.is_some()).collect()
    }

    async fn find_leader(&self) -> Option<usize> {
        for index in self.running() {
            let status = self.call(index, "/v3/maintenance/status", json!({})).await;
            let leads = |status: Value| {
                status["leader"].is_string() && status["leader"] == status["header"]["member_id"]
            };
            // Later versions tell it only to a user, once authentication is on.
            let is_leader = match status {
                Some(status) => leads(status),
                None => self
                    .exchange(index, "GET", "/metrics", "")
                    .await
                    .is_some_and(|metrics| metrics.lines().any(|line| line == "etcd_server_is_leader 1")),
            };
            if is_leader {
                return Some(index);
            }
        }
        None
    }

    async fn call(&self, node: usize, path: &str, body: Value) -> Option<Value> {
        let reply = self.exchange(node, "POST", path, &body.to_string()).await?;
        serde_json::from_str(&reply).ok()
    }

    /// The body of a reply with status 200.
    async fn exchange(&self, node: usize, method: &str, path: &str, body: &str) -> Option<String> {
        let addr = self.nodes[node].client;
        let length = body.len();
        let exchange = async {
            let mut conn = TcpStream::connect(addr).await.ok()?;
            let request =
                format!("{method} {path} HTTP/1.0\r\nHost: {addr}\r\nContent-Length: {length}\r\n\r\n{body}");
            conn.write_all(request.as_bytes()).await.ok()?;
            let mut reply = String::new();
            conn.read_to_string(&mut reply).await.ok()?;
            let (head, body) = reply.split_once("\r\n\r\n")?;
            head.contains(" 200 ").then(|| body.to_owned())
        };
        timeout(CALL, exchange).await.ok()?
    }

    fn spawn(&mut self, index: usize) {
        let peers: Vec<String> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(index, node)| format!("n{index}=http://{}", node.peer))
            .collect();
        let (client, peer) =
            (format!("http://{}", self.nodes[index].client), format!("http://{}", self.nodes[index].peer));
        let mut command = process::command(&self.program);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let data = self.folder.path().join(format!("n{index}"));
        command.arg("--name").arg(format!("n{index}")).arg("--data-dir").arg(data);
        let mut listen = client.clone();
        if let Some(tls) = &self.tls {
            listen += &format!(",https://{}", self.nodes[index].tls);
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(&tls.ca);
            command.arg("--cert-file").arg(&tls.cert).arg("--key-file").arg(&tls.key);
        }
        command.args(["--listen-client-urls", &listen, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &peers.join(","), "--initial-cluster-state", "new"]);
        // Tests wait for elections. Loopback is quick, but the machine may be busy.
        command.args(["--heartbeat-interval", "100", "--election-timeout", "1000", "--logger", "zap"]);
        command.args(&self.args);
        self.nodes[index].child = Some(command.spawn().unwrap());
    }
}

impl Node {
    fn new(addrs: &[SocketAddr]) -> Self {
        Self { client: addrs[0], peer: addrs[1], tls: addrs[2], child: None }
    }
}

/// Text as etcd's JSON wants it.
fn text(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("etcd")).find(|program| program.is_file())
}

/// Addresses that are free now.
fn addrs(count: usize) -> Vec<SocketAddr> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
