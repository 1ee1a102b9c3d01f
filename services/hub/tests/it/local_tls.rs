//! `hub up --tls`, as clients that trust its CA see it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use hubspoke_testkit::DEADLINE;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::up::HubUp;

/// Fetches a page over TLS, trusting only this CA. Returns the body.
fn get(ca: &Path, addr: SocketAddr, host: &str, path: &str) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let tcp = TcpStream::connect(addr)?;
    tcp.set_read_timeout(Some(DEADLINE))?;
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), tcp);
    let head = format!("GET {path} HTTP/1.1\r\nhost: {host}:{}\r\nconnection: close\r\n\r\n", addr.port());
    stream.write_all(head.as_bytes())?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{reply}");
    Ok(body.to_owned())
}

fn start(dir: Option<Arc<tempfile::TempDir>>) -> (HubUp, SocketAddr) {
    let dir = dir.unwrap_or_else(|| Arc::new(tempfile::tempdir().unwrap()));
    let up = HubUp::start_with(dir, &["up", "--tls"], &[("HUB_GATEWAY__TLS__LISTEN", "127.0.0.1:0")]);
    let line = up.banner.lines().find_map(|line| line.trim().strip_prefix("https://")).unwrap();
    let addr = line.parse().unwrap();
    (up, addr)
}

#[test]
fn every_service_has_an_https_host_of_its_own() {
    let (up, addr) = start(None);
    let ca = up.dir.path().join("data/tls/ca.crt");
    let shown = format!("curl --cacert data/tls/ca.crt https://visit.localhost:{}/visit\n", addr.port());
    assert!(up.banner.contains(&shown), "{}", up.banner);
    assert_eq!(get(&ca, addr, "visit.localhost", "/visit").unwrap().trim(), "1");
    assert_eq!(get(&ca, addr, "localhost", "/visit").unwrap().trim(), "2");
    assert_eq!(get(&ca, addr, "127.0.0.1", "/visit").unwrap().trim(), "3");
    let error = get(&ca, addr, "shop.example", "/").unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    for key in ["ca.key", "gateway/tls.key"] {
        let mode = up.dir.path().join("data/tls").join(key).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    // The next start has the same CA, so that clients need to trust it once.
    let trusted = std::fs::read(&ca).unwrap();
    let dir = up.dir.clone();
    drop(up);
    let (up, addr) = start(Some(dir));
    assert_eq!(std::fs::read(&ca).unwrap(), trusted);
    get(&ca, addr, "visit.localhost", "/visit").unwrap();
    drop(up);
}
