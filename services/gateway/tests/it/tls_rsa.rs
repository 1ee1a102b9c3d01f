//! RSA certificates, which public authorities still sign.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::support::{DEADLINE, FakeInstance, Gateway};

/// PKCS #8, 2048 bits, for this test alone: ring makes no RSA keys.
const KEY: &str = include_str!("rsa_key.pem");

#[tokio::test(flavor = "multi_thread")]
async fn an_rsa_key_works_with_tls_1_2_and_1_3() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::from_pem(KEY).unwrap();
    let cert = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.path().join("tls.crt"), cert.pem()).unwrap();
    std::fs::write(folder.path().join("tls.key"), KEY).unwrap();
    let instance = FakeInstance::serve(Router::new().route("/shop", get(async || "hello"))).await;
    let gateway = Gateway::start(|config| {
        config.tls.listen = Some("127.0.0.1:0".parse().unwrap());
        config.tls.certs = vec![folder.path().to_owned()];
    });
    let gateway = gateway.await;
    gateway.set("shop", &[instance.info("shop")]).await;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    for version in [&TLS12, &TLS13] {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        let config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
        let tcp = TcpStream::connect(gateway.tls.unwrap()).await.unwrap();
        let name = ServerName::try_from("a.example").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        let request = b"GET /shop HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut reply = String::new();
        tokio::time::timeout(DEADLINE, stream.read_to_string(&mut reply)).await.unwrap().unwrap();
        assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("hello"), "{reply}");
    }
}
