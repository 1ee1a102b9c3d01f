use std::path::Path;

use hubspoke_testkit::pki::{DAY, IdentityPaths, TestCa};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;
use crate::cert::CertFiles;

const DOMAIN: &str = "spiffe://hubspoke/";
/// A minute ago, for a second.
const EXPIRED: (i64, i64) = (-61, -60);

fn files(paths: &IdentityPaths) -> IdentityFiles {
    let IdentityPaths { cert, key, ca } = paths.clone();
    IdentityFiles { own: CertFiles { cert, key, may_be_missing: false }, ca }
}

fn open(ca: &TestCa, folder: &Path, names: &[&str]) -> Arc<Identity> {
    Identity::open(files(&ca.identity(folder, names)), DOMAIN).unwrap()
}

/// A handshake, and a byte from the client to the server; returns the client's names as the server sees them.
async fn shake(
    client: impl Future<Output = io::Result<()>>,
    server: &Arc<Identity>,
    stream: tokio::io::DuplexStream,
) -> (io::Result<()>, io::Result<Vec<String>>) {
    let config = Arc::new(server.server_config(&[b"h2", b"http/1.1"]).unwrap());
    let accept = async {
        let (mut stream, names) = server.accept(config, stream).await?;
        stream.read_u8().await?;
        Ok(names)
    };
    tokio::join!(client, accept)
}

async fn between(
    client: &Arc<Identity>,
    names: &[&str],
    server: &Arc<Identity>,
) -> (io::Result<()>, io::Result<Vec<String>>) {
    let (near, far) = duplex(1 << 16);
    let connect = async {
        let mut stream = client.connect(names, &[], near).await?;
        stream.write_u8(1).await
    };
    shake(connect, server, far).await
}

/// What an attacker has: any certificate or none, and no care about the server's.
async fn attack(
    server: &Arc<Identity>,
    certificate: Option<(String, String)>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> io::Result<Vec<String>> {
    let builder = ClientConfig::builder_with_provider(server.state.provider.clone());
    let builder = builder.with_protocol_versions(versions).unwrap().dangerous();
    let trusting = ServerVerifier { state: server.state.clone(), expected: server.names() };
    let builder = builder.with_custom_certificate_verifier(Arc::new(trusting));
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    let (near, far) = duplex(1 << 16);
    let connect = async {
        let name = ServerName::try_from("registry").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, near).await?;
        stream.write_u8(1).await?;
        stream.flush().await
    };
    shake(connect, server, far).await.1
}

#[tokio::test]
async fn both_ends_know_who_the_other_is() {
    let (ca, folder) = (TestCa::new(), tempfile::tempdir().unwrap());
    let shop = open(&ca, &folder.path().join("shop"), &["shop", "cart"]);
    let registry = open(&ca, &folder.path().join("registry"), &["registry"]);
    let (connected, names) = between(&shop, &["registry"], &registry).await;
    assert_eq!((connected.is_ok(), names.unwrap()), (true, vec!["shop".to_owned(), "cart".to_owned()]));
    assert!(between(&registry, &["visit", "cart"], &shop).await.0.is_ok(), "one of the names is enough");
    let error = between(&registry, &["visit"], &shop).await.0.unwrap_err().to_string();
    assert!(error.contains("shop, cart") && error.contains("visit"), "{error}");
}

#[tokio::test]
async fn no_stranger_gets_in() {
    let (ca, foreign, folder) = (TestCa::new(), TestCa::new(), tempfile::tempdir().unwrap());
    let registry = open(&ca, folder.path(), &["registry"]);
    let name = format!("{DOMAIN}shop");
    for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
        for (certificate, why) in [
            (None, "no certificate"),
            (Some(foreign.issue(&[&name], DAY)), "a foreign authority"),
            (Some(ca.issue(&[&name], EXPIRED)), "expired"),
            (Some(ca.issue(&[&name], (3600, 7200))), "not valid yet"),
            (Some(ca.issue(&[], DAY)), "no name"),
            (Some(ca.issue(&["spiffe://other/shop"], DAY)), "a name in another domain"),
            (Some(ca.issue(&[DOMAIN], DAY)), "an empty name"),
        ] {
            assert!(attack(&registry, certificate, versions).await.is_err(), "{why}");
        }
        let good = attack(&registry, Some(ca.issue(&[&name], DAY)), versions).await;
        assert_eq!(good.unwrap(), ["shop"], "the only difference is the certificate");
    }
}

#[tokio::test]
async fn clear_text_and_old_versions_are_refused() {
    let (ca, folder) = (TestCa::new(), tempfile::tempdir().unwrap());
    let registry = open(&ca, folder.path(), &["registry"]);
    // A ClientHello of TLS 1.1: version 3.2 in record and body, one cipher suite, no extensions.
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    for (bytes, what) in
        [(hello, "TLS 1.1"), (b"GET /services HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "clear text")]
    {
        let (mut near, far) = duplex(1 << 16);
        let send = async { near.write_all(&bytes).await };
        let (sent, accepted) = shake(send, &registry, far).await;
        assert!(sent.is_ok() && accepted.is_err(), "{what}");
    }
}

#[tokio::test]
async fn a_server_is_trusted_only_with_a_valid_certificate_of_its_name() {
    let (ca, foreign, folder) = (TestCa::new(), TestCa::new(), tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    let shop = open(&ca, &at("shop"), &["shop"]);
    let stranger = open(&foreign, &at("stranger"), &["registry"]);
    assert!(between(&shop, &["registry"], &stranger).await.0.is_err(), "of a foreign authority");
    assert!(between(&shop, &["registry"], &open(&ca, &at("visit"), &["visit"])).await.0.is_err());
    assert!(between(&shop, &["registry"], &open(&ca, &at("registry"), &["registry"])).await.0.is_ok());
}

#[tokio::test]
async fn authorities_change_while_both_run() {
    let (old, new, folder) = (TestCa::new(), TestCa::new(), tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    let (shop, registry) = (open(&old, &at("shop"), &["shop"]), open(&old, &at("registry"), &["registry"]));
    let write = |issuer: &TestCa, trusted: &[&TestCa], identity: &Arc<Identity>, name: &str| {
        issuer.identity_with(&at(name), &[name], DAY, trusted);
        identity.reload();
    };
    let generation = shop.generation();
    for (issuer, trusted) in [(&old, &[&old, &new][..]), (&new, &[&old, &new][..]), (&new, &[&new][..])] {
        write(issuer, trusted, &shop, "shop");
        assert!(
            between(&shop, &["registry"], &registry).await.0.is_ok(),
            "one has the change, one has not yet"
        );
        write(issuer, trusted, &registry, "registry");
        assert!(between(&shop, &["registry"], &registry).await.1.is_ok());
    }
    assert!(!generation.is_current() && shop.generation().is_current());
    assert_eq!((shop.reload_failures(), registry.reload_failures()), (0, 0));
    // Without its own authority, a certificate would be of no use: the last set stays.
    write(&old, &[&new], &shop, "shop");
    assert_eq!(shop.reload_failures(), 1);
    assert!(between(&shop, &["registry"], &registry).await.1.is_ok());
}

#[test]
fn what_is_wrong_with_an_identity_is_one_line_with_the_file() {
    let (ca, foreign, folder) = (TestCa::new(), TestCa::new(), tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    let text = |name: &str, content: &str| {
        std::fs::write(at(name), content).unwrap();
        at(name)
    };
    let good = files(&ca.identity(&at("good"), &["shop"]));
    let with_ca = |ca: std::path::PathBuf| IdentityFiles { ca, ..good.clone() };
    let issued = |name: &str, uris: &[&str]| {
        let (cert, key) = ca.issue(uris, DAY);
        let (cert, key) = (text(name, &cert), text(&format!("{name}.key"), &key));
        let own = CertFiles { cert, key, may_be_missing: false };
        IdentityFiles { own, ..good.clone() }
    };
    let expired = foreign.identity_with(&at("expired"), &["shop"], EXPIRED, &[&foreign]);
    for (files, why) in [
        (with_ca(at("none")), "none: No such file"),
        (with_ca(text("empty", "")), "empty: no certificate in PEM"),
        (with_ca(text("foreign", &foreign.pem())), "good/tls.crt: no authority in"),
        (issued("nameless", &["https://hubspoke/shop"]), "nameless: the certificate has no name of the form"),
        (files(&expired), "expired/tls.crt: expired on"),
    ] {
        let error = Identity::open(files, DOMAIN).unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains('\n'), "{why}: {error}");
    }
    assert_eq!(Identity::open(good, DOMAIN).unwrap().names(), ["shop"]);
}
