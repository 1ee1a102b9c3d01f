//! Certificates from an ACME server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hubspoke_chassis::Config;
use hubspoke_chassis::config::Common;
use hubspoke_gateway::config::AcmeChallenge;
use hubspoke_gateway::{GatewayConfig, GatewayServer, PROCESS};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::pebble::{self, Passage, Pebble};
use super::support::{ClosedPort, Gateway, eventually, status};
use super::tls_support::{Authority, Client, GET};

/// A day, as far as pebble is concerned.
const LONG: u64 = 86_400;

struct Setup {
    folder: tempfile::TempDir,
    http: Passage,
    tls: Passage,
    pebble: Option<Pebble>,
    directory: String,
    ca: PathBuf,
}

impl Setup {
    async fn new(validity: u64) -> Self {
        let (folder, http, tls) = (tempfile::tempdir().unwrap(), Passage::new().await, Passage::new().await);
        let pebble = Pebble::start(folder.path(), http.port, tls.port, validity).await;
        let (directory, ca) = (pebble.directory.clone(), pebble.ca.clone());
        Self { folder, http, tls, pebble: Some(pebble), directory, ca }
    }

    async fn gateway(&self, challenge: AcmeChallenge, hosts: &[&str]) -> Gateway {
        Gateway::start(|config| {
            config.data_dir = Some(self.folder.path().join("data"));
            config.tls.listen = Some("127.0.0.1:0".parse().unwrap());
            config.tls.redirect = true;
            config.tls.acme.hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
            config.tls.acme.directory = self.directory.clone();
            config.tls.acme.ca = Some(self.ca.clone());
            config.tls.acme.challenge = challenge;
        })
        .await
    }

    /// The file in which the gateway keeps a host's certificate.
    fn file(&self, host: &str) -> PathBuf {
        let mut servers = std::fs::read_dir(self.folder.path().join("data/acme")).unwrap();
        servers.next().unwrap().unwrap().path().join(format!("{host}.pem"))
    }
}

/// The certificate that the gateway shows for a host, if it is the one in this file. A client checks name and dates.
async fn shown(gateway: &Gateway, host: &str, file: &Path) -> Option<Vec<u8>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(file).ok()?.collect::<Result<_, _>>().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(chain.last().unwrap().clone()).unwrap(); // pebble's intermediate CA
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let client = Client::connect(gateway, &TlsConnector::from(Arc::new(config)), host).await.ok()?;
    Some(client.stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
}

/// Waits for a certificate of a host that is not `before`. Longer than others wait: a failed order is tried again after a
/// minute, and pebble refuses some requests for no reason.
async fn certificate(gateway: &Gateway, host: &str, file: &Path, before: Option<&[u8]>) -> Vec<u8> {
    let shown = async {
        loop {
            match shown(gateway, host, file).await {
                Some(cert) if Some(&*cert) != before => return cert,
                _ => tokio::time::sleep(Duration::from_millis(100)).await, // between two looks
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(180), shown).await.expect("a certificate")
}

async fn failures(gateway: &Gateway) -> u64 {
    let metrics = gateway.get_control("/metrics").await.1;
    let line = metrics.lines().find(|line| line.starts_with("hub_tls_acme_failures_total")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn issues_and_keeps(challenge: AcmeChallenge) {
    if !pebble::is_installed() {
        return;
    }
    let mut setup = Setup::new(LONG).await;
    let hosts = ["a.example", "B.b.example"];
    let gateway = setup.gateway(challenge, &hosts).await;
    setup.http.to(gateway.addr);
    setup.tls.to(gateway.tls.unwrap());
    let names = hosts.map(str::to_ascii_lowercase);
    for host in &names {
        let file = setup.file(host);
        certificate(&gateway, host, &file, None).await;
    }
    // Nothing is left of the challenges, and the clear port redirects to the new host.
    let probe = "GET /.well-known/acme-challenge/x HTTP/1.1\r\nHost: a.example\r\n\r\n";
    assert!([404, 503].contains(&status(&gateway.connect_and(probe).await)), "nobody has the path");
    assert_eq!(status(&gateway.connect_and(GET).await), 308);
    // After a restart they are still there, though the server is not.
    let first = shown(&gateway, "a.example", &setup.file("a.example")).await.unwrap();
    drop((gateway, setup.pebble.take()));
    let gateway = setup.gateway(challenge, &hosts).await;
    assert_eq!(shown(&gateway, "a.example", &setup.file("a.example")).await, Some(first));
    assert_eq!(failures(&gateway).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_come_by_http_01_and_outlast_a_restart() {
    issues_and_keeps(AcmeChallenge::Http01).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_come_by_tls_alpn_01_and_outlast_a_restart() {
    issues_and_keeps(AcmeChallenge::TlsAlpn01).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_before_it_ends() {
    if !pebble::is_installed() {
        return;
    }
    let mut setup = Setup::new(15).await;
    let gateway = setup.gateway(AcmeChallenge::Http01, &["a.example"]).await;
    setup.http.to(gateway.addr);
    let file = setup.file("a.example");
    let first = certificate(&gateway, "a.example", &file, None).await;
    // When a third of its 15 s is left.
    certificate(&gateway, "a.example", &file, Some(&first)).await;
}

#[tokio::test]
async fn hosts_need_a_port_and_a_folder() {
    for (listen, expected) in
        [(None, "and listen is not"), (Some("127.0.0.1:0"), "and gateway.data_dir is not")]
    {
        let mut own = GatewayConfig::default();
        own.tls.listen = listen.map(|addr| addr.parse().unwrap());
        own.tls.acme.hosts = vec!["a.example".to_owned()];
        let mut common = Common::of(&PROCESS).unwrap();
        common.listen = "127.0.0.1:0".parse().unwrap();
        let error = GatewayServer::bind(Config { common, own }).await.err().unwrap().to_string();
        assert!(error.contains("acme.hosts is set") && error.contains(expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_or_refuses_is_counted_and_everything_else_goes_on() {
    let (folder, authority, closed) = (tempfile::tempdir().unwrap(), Authority::new(), ClosedPort::new());
    authority.issue(&folder.path().join("b.example"), "b.example");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.0.pem()).unwrap();
    let gateway = Gateway::start(|config| {
        config.data_dir = Some(folder.path().join("data"));
        config.tls.listen = Some("127.0.0.1:0".parse().unwrap());
        config.tls.certs = vec![folder.path().join("b.example")];
        config.tls.acme.hosts = vec!["a.example".to_owned()];
        config.tls.acme.directory = format!("https://{}/dir", closed.addr());
        config.tls.acme.ca = Some(ca);
    })
    .await;
    eventually("the failure is counted", async || failures(&gateway).await == 1).await;
    let connector = authority.client(&super::tls_support::BOTH, &[]);
    assert!(Client::connect(&gateway, &connector, "b.example").await.is_ok());
    assert_eq!(gateway.get_control("/readyz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_the_server_can_not_reach_gets_no_certificate() {
    if !pebble::is_installed() {
        return;
    }
    let (folder, closed) = (tempfile::tempdir().unwrap(), ClosedPort::new());
    let port = closed.addr().port();
    let mut setup = Setup::new(LONG).await;
    setup.pebble = None;
    let pebble = Pebble::start(folder.path(), port, port, LONG).await;
    (setup.directory, setup.ca) = (pebble.directory.clone(), pebble.ca.clone());
    let gateway = setup.gateway(AcmeChallenge::Http01, &["a.example"]).await;
    eventually("the failure is counted", async || failures(&gateway).await == 1).await;
    assert!(!setup.file("a.example").exists());
    assert_eq!(
        status(&gateway.connect_and(GET).await),
        421,
        "no certificate is for the host, so there is no redirect"
    );
}
