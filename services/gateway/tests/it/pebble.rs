//! An ACME server for tests: Debian's pebble, with a DNS server that resolves every name to 127.0.0.1.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::support::DEADLINE;

/// The variable that makes tests fail, rather than be skipped, without pebble.
const REQUIRE: &str = "HUBSPOKE_TEST_REQUIRE_PEBBLE";

/// Whether pebble is installed. Without it, tests are skipped with a line.
#[allow(clippy::print_stderr, reason = "a test that is skipped should say so")]
pub(crate) fn is_installed() -> bool {
    let is_there = ["pebble", "pebble-challtestsrv"].iter().all(|name| {
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|folder| folder.join(name).is_file())
    });
    let required = std::env::var(REQUIRE).is_ok_and(|value| value == "1");
    assert!(is_there || !required, "pebble is not installed, and {REQUIRE}=1");
    if !is_there {
        eprintln!("skipped: pebble is not installed (Debian's package pebble)");
    }
    is_there
}

/// A port of this machine whose connections are passed on to where the gateway listens, which is not known when pebble
/// starts.
pub(crate) struct Passage {
    listener: Option<TcpListener>,
    pub(crate) port: u16,
    tasks: JoinSet<()>,
}

impl Passage {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener: Some(listener), port, tasks: JoinSet::new() }
    }

    pub(crate) fn to(&mut self, addr: SocketAddr) {
        let listener = self.listener.take().unwrap();
        self.tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut onward = TcpStream::connect(addr).await?;
                    tokio::io::copy_bidirectional(&mut stream, &mut onward).await
                });
            }
        });
    }
}

/// A running server; it ends when dropped.
pub(crate) struct Pebble {
    pub(crate) directory: String,
    /// The CA of the server's own certificate.
    pub(crate) ca: PathBuf,
    _children: [Child; 2],
}

impl Pebble {
    /// Starts a server that issues certificates for so many seconds, and looks for challenges at these ports.
    pub(crate) async fn start(folder: &Path, http: u16, tls: u16, validity: u64) -> Self {
        let (cert, key) = (folder.join("pebble.crt"), folder.join("pebble.key"));
        let pair = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(&cert, params.self_signed(&pair).unwrap().pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        for _ in 0..5 {
            let [api, management, dns, dns_management] = free_ports();
            let config = serde_json::json!({"pebble": {
                "listenAddress": format!("127.0.0.1:{api}"),
                "managementListenAddress": format!("127.0.0.1:{management}"),
                "certificate": cert, "privateKey": key, "httpPort": http, "tlsPort": tls,
                "ocspResponderURL": "", "externalAccountBindingRequired": false,
                "certificateValidityPeriod": validity,
            }});
            let file = folder.join("pebble.json");
            std::fs::write(&file, config.to_string()).unwrap();
            let mut resolver = Command::new("pebble-challtestsrv");
            resolver.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
            resolver.args([
                "-dns01",
                &format!("127.0.0.1:{dns}"),
                "-management",
                &format!("127.0.0.1:{dns_management}"),
            ]);
            let mut pebble = Command::new("pebble");
            pebble.arg("-config").arg(&file).args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
            pebble
                .env("PEBBLE_VA_NOSLEEP", "1")
                .env("PEBBLE_VA_ALWAYS_VALID", "0")
                .env("PEBBLE_AUTHZREUSE", "0");
            let mut children = [resolver, pebble].map(|mut command| {
                let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                quiet.kill_on_drop(true).spawn().unwrap()
            });
            if listens(&mut children, &[api, dns_management]).await {
                return Self {
                    directory: format!("https://127.0.0.1:{api}/dir"),
                    ca: cert,
                    _children: children,
                };
            }
        }
        panic!("pebble does not start");
    }
}

/// Ports that are free at this moment. If another program takes one meanwhile, the start is tried again.
fn free_ports<const N: usize>() -> [u16; N] {
    let held: [_; N] = std::array::from_fn(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// Waits until all ports are connected to; `false` if a child has ended.
async fn listens(children: &mut [Child], ports: &[u16]) -> bool {
    let waiting = async {
        for port in ports {
            while TcpStream::connect(("127.0.0.1", *port)).await.is_err() {
                if children.iter_mut().any(|child| child.try_wait().unwrap().is_some()) {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(20)).await; // between two looks at another process
            }
        }
        true
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("pebble listens")
}
