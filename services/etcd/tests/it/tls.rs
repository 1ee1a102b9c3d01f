//! TLS in both directions: etcd has a certificate, and asks for the client's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hubspoke_etcd::{Config, Etcd, Update, Watch};
use hubspoke_testkit::etcd::{self, EtcdTls};
use hubspoke_testkit::eventually;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::put;

/// An authority, and the files of its certificates.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.crt"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ca(&self) -> PathBuf {
        self.file("ca.crt")
    }

    /// Writes a certificate for 127.0.0.1 and its key.
    fn issue(&self, cert: &Path, key: &Path) {
        let pair = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        fs::write(cert, params.signed_by(&pair, &self.issuer).unwrap().pem()).unwrap();
        fs::write(key, pair.serialize_pem()).unwrap();
    }
}

#[tokio::test]
async fn client_and_etcd_show_each_other_their_certificates() {
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let tls = EtcdTls { ca: ours.ca(), cert: ours.file("server.crt"), key: ours.file("server.key") };
    ours.issue(&tls.cert, &tls.key);
    let Some(mut cluster) = etcd::start_with_tls(tls).await else { return };
    let (cert, key) = (ours.file("client.crt"), ours.file("client.key"));
    ours.issue(&cert, &key);
    let config = Config {
        endpoints: cluster.tls_endpoints(),
        ca: Some(ours.ca()),
        cert: Some(cert.clone()),
        key: Some(key.clone()),
        ..Config::default()
    };
    let etcd = Etcd::new(config.clone()).unwrap();
    put(&etcd, "/hubspoke/a", "1").await;
    let mut watch = Watch::start(&etcd, "/hubspoke/");
    let Update::Snapshot(snapshot) = watch.next().await else { panic!("a list first") };
    assert_eq!(snapshot.kvs.len(), 1);

    // Neither without a certificate, nor with a stranger's, nor to a stranger.
    let (other_cert, other_key) = (foreign.file("client.crt"), foreign.file("client.key"));
    foreign.issue(&other_cert, &other_key);
    for (what, config) in [
        ("no certificate", Config { cert: None, key: None, ..config.clone() }),
        ("a stranger's", Config { cert: Some(other_cert), key: Some(other_key), ..config.clone() }),
        ("to a stranger", Config { ca: Some(foreign.ca()), ..config.clone() }),
    ] {
        let config = Config { request_timeout: Duration::from_secs(2), ..config };
        let refused = Etcd::new(config).unwrap().get("/hubspoke/a").await;
        assert!(refused.is_err(), "{what}: {refused:?}");
    }

    // The files are read again for each connection.
    ours.issue(&cert, &key);
    cluster.kill_all().await;
    cluster.restart_all().await;
    put(&etcd, "/hubspoke/a", "2").await;
    eventually("the change is seen", async || match watch.next().await {
        Update::Changes { .. } => true,
        Update::Snapshot(snapshot) => snapshot.kvs.iter().any(|entry| &entry.value[..] == b"2"),
        _ => false,
    })
    .await;
}
